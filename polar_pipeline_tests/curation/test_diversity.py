"""Diversity is what its definition says, in any order of rows; the gallery shows those that passed first."""

import numpy as np
import pandas as pd
import pytest

from polar_pipeline.curation.diversity import diversity, gallery, measure
from polar_pipeline.curation.embedding import NgramEmbedder


def table(real: list[str], made: list[str], kept: bool = True) -> pd.DataFrame:
    texts = [*real, *made]
    return pd.DataFrame({
        "id": [f"id_{place}" for place in range(len(texts))], "text": texts, "split": "train",
        "label": pd.array([place % 2 for place in range(len(texts))], dtype="Int8"),
        "source": ["real"] * len(real) + ["direct"] * len(made), "keep": [True] * len(real) + [kept] * len(made),
        "stage": [""] * len(real) + ["" if kept else "language"] * len(made),
    })  # fmt: skip


def test_exact_figures() -> None:
    found = measure(["a b a", "a c"])
    assert (found.texts, found.distinct_1, found.distinct_2) == (2, pytest.approx(3 / 5), 1.0)
    one, other = NgramEmbedder().embed(["a b a", "a c"])
    assert found.cosine == pytest.approx(float(one @ other), abs=1e-6)
    assert measure(["the same words", "the same words"]).cosine == pytest.approx(1.0, abs=1e-5)
    # of scripts without blanks, characters
    assert measure(["市長発表計画自転車道今日", "市長発表計画自転車道今日"]).distinct_1 == pytest.approx(0.5)


def test_samples_of_one_size_in_any_order() -> None:
    generator = np.random.default_rng(0)
    real = [" ".join(generator.choice(list("abcdefghij"), 8)) for _ in range(60)]
    found = diversity(frame := table(real, ["a b c", "a b c", "a b d", "b c d"]))
    assert found["real"].texts == found["synthetic"].texts == 4
    assert found["synthetic"].distinct_2 < found["real"].distinct_2
    assert found["synthetic"].cosine > found["real"].cosine
    assert diversity(frame.sample(frac=1, random_state=1)) == found
    assert diversity(table(real, [])) == diversity(table(real, ["a", "b"], kept=False)) == {}


def test_the_gallery() -> None:
    frame = table([f"real {place}" for place in range(10)], [f"made {place} " + "x" * 400 for place in range(10)])
    found = gallery(frame)
    assert len(found) == 6 and [row["label"] for row in found] == [0, 0, 0, 1, 1, 1]
    assert all(str(row["real"]).startswith("real") and len(str(row["synthetic"])) == 280 for row in found)
    assert gallery(frame.sample(frac=1, random_state=1)) == found
    assert {row["stage"] for row in found} == {""}
    rejected = frame.assign(keep=frame["source"] == "real", stage="length")
    assert [row["stage"] for row in gallery(rejected)] == ["length"] * 6
    # more posts than a language trains on are not worse ones
    surplus = rejected.assign(stage="share")
    assert gallery(surplus) == found and diversity(surplus) == diversity(frame)
