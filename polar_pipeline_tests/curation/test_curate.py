"""Every row keeps its place and gets a verdict; real posts stay; copies of held-out posts are leakage and go."""

import pandas as pd
import pytest

from polar_pipeline.curation.curate import REAL, VERDICT, capped, curate, for_backbones
from polar_pipeline.curation.embedding import NgramEmbedder
from polar_pipeline.curation.funnel import funnel
from polar_pipeline.synthesis.posts import as_table
from polar_pipeline.task.synthesis import CurationSettings
from polar_pipeline_tests.synthesis.made import CARD, make_posts

WORDS = [
    "Die",
    "Stadt",
    "hat",
    "wieder",
    "einmal",
    "nichts",
    "getan",
    "und",
    "alle",
    "reden",
    "nur",
    "über",
    "das",
    "Wetter",
    "von",
    "gestern",
    "Abend",
    "im",
    "Park",
    "am",
    "Fluss",
]


def real_posts() -> pd.DataFrame:
    posts = make_posts(120)
    return posts.assign(
        text=[
            " ".join(WORDS[(i * 7 + j * (i % 5 + 1)) % len(WORDS)] for j in range(14)) + f" {i}"
            for i in range(len(posts))
        ]
    )


def synthetic(*texts: str) -> pd.DataFrame:
    rows = [
        {"id": f"deu_syn_{i}", "text": text, "label": i % 2, "split": "train", "fold": i % 5, "source": "direct",
         "parent_id": "", "request": "k"}
        for i, text in enumerate(texts)
    ]  # fmt: skip
    return as_table(rows, CARD)


def verdicts(*texts: str, **changes: object) -> pd.DataFrame:
    settings = CurationSettings.model_validate(changes)
    table = curate(real_posts(), synthetic(*texts), "deu", settings, NgramEmbedder())
    return table[table["source"] != REAL].reset_index(drop=True)


GOOD = "Gestern im Park haben alle über die Stadt geredet, und getan hat wieder keiner was."


def test_each_stage_objects_to_its_own() -> None:
    found = verdicts(
        GOOD,
        "   ",
        "kurz",
        "Сегодня в городе снова ничего не сделали, и все говорят о погоде.",
        "Yesterday everybody in the park was talking about the city and nobody did anything again.",
        "Hier ist ein Beitrag über die Stadt, die nichts tut: wieder hat keiner was getan.",
        "Es tut mir leid, aber ich kann keinen Beitrag über die Stadt schreiben.",
        "Die Stadt <table class='x'> hat wieder einmal nichts getan und alle reden",
        "Die Stadt hat wieder nichts getan, und alle reden im Park über das,",
    )
    assert found["stage"].tolist() == [
        "", "empty", "length", "language", "language", "meta", "meta", "markup", "truncated",
    ]  # fmt: skip
    assert found["keep"].tolist() == [True] + [False] * 8
    assert (found.loc[~found["keep"], "reason"] != "").all()


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_near_copies_of_real_posts_go_whatever_their_split(split: str) -> None:
    posts = real_posts()
    original = posts[posts["split"] == split].iloc[3]
    found = verdicts(GOOD, str(original["text"]).upper() + "!!")
    assert found.loc[1, "stage"] == "duplicate" and found.loc[1, "similar_to"] == original["id"]
    assert found.loc[1, "similarity"] >= 0.9 and split in str(found.loc[1, "reason"])
    assert found.loc[0, "keep"]


def test_of_two_alike_synthetic_posts_the_first_stays() -> None:
    found = verdicts(GOOD, GOOD.replace("geredet", "gesprochen"), near_duplicate=0.7)
    assert found["keep"].tolist() == [True, False] and found.loc[1, "similar_to"] == "deu_syn_0"


def test_no_more_than_the_share_is_kept() -> None:
    texts = [f"Gestern im Park haben {i * 37} Leute nur über {WORDS[i]} und {WORDS[-i]} geredet." for i in range(1, 15)]
    table = curate(real_posts(), synthetic(*texts), "deu", CurationSettings(near_duplicate=1.0), NgramEmbedder())
    assert table["keep"].all()
    found = capped(table, 0.05)[lambda table: table["source"] != REAL]
    assert found["keep"].sum() == int(120 * 0.05 / 0.95)
    assert set(found["stage"]) == {"", "share"}


def test_real_posts_stay_in_their_order_and_backbones_get_no_dropped_synthetic_ones() -> None:
    posts = real_posts()
    table = curate(posts, synthetic(GOOD, "kurz"), "deu", CurationSettings(), NgramEmbedder())
    assert table["id"].tolist()[: len(posts)] == posts["id"].tolist() and table["keep"][: len(posts)].all()
    given = for_backbones(table)
    assert len(given) == len(posts) + 1 and "keep" in given and not set(VERDICT[1:]) & set(given)


def test_contradictions_are_kept_unless_the_settings_say_drop() -> None:
    posts = real_posts()
    posts.loc[1, "text"] = str(posts.loc[0, "text"]).lower()
    posts.loc[0, "label"], posts.loc[1, "label"] = 0, 1
    for setting, kept in (("keep", [True, True]), ("drop", [False, False])):
        settings = CurationSettings.model_validate({"contradictions": setting})
        table = curate(posts, as_table([], CARD), "deu", settings, NgramEmbedder())
        assert table["keep"][:2].tolist() == kept and table["keep"][2:].all()
        assert len(for_backbones(table)) == len(posts)  # scored all the same


def test_the_funnel_counts_every_row_once() -> None:
    table = curate(real_posts(), synthetic(GOOD, "kurz", GOOD + "!", "  "), "deu", CurationSettings(), NgramEmbedder())
    rows = funnel(table)
    assert sum(int(str(row["made"])) for row in rows) == 4
    for row in rows:
        taken = sum(int(str(value)) for name, value in row.items() if name not in ("source", "label", "made"))
        assert taken == row["made"]


def test_a_small_share_has_all_sources_and_labels_and_whole_pairs() -> None:
    sources = ["direct"] * 50 + ["rewrite"] * 30 + ["contrast"] * 20
    rows = [
        {"id": f"s{i}", "text": f"Text {i}", "label": i % 2, "split": "train", "fold": i % 5, "source": source,
         "parent_id": f"pair{i // 2}" if source == "contrast" else "", "request": "k"}
        for i, source in enumerate(sources)
    ]  # fmt: skip
    table = pd.concat([real_posts(), as_table(rows, CARD)], ignore_index=True)
    table = table.assign(keep=True, stage="", reason="")
    kept_before: set[str] = set()
    for share, most in ((0.1, 13), (0.2, 30), (0.3, 51)):
        kept = capped(table, share)[lambda table: table["keep"] & (table["source"] != REAL)]
        assert most - 1 <= len(kept) <= most
        assert (
            abs(
                kept["source"].value_counts() / len(kept) - pd.Series({"direct": 0.5, "rewrite": 0.3, "contrast": 0.2})
            ).max()
            < 0.1
        )
        assert abs(float(kept["label"].mean()) - 0.5) < 0.1
        assert (kept[kept["source"] == "contrast"]["parent_id"].value_counts() == 2).all()
        assert kept_before <= set(kept["id"])
        kept_before = set(kept["id"])
    assert capped(table, 0.0)["keep"].sum() == len(real_posts())
