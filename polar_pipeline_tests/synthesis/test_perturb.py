"""Perturbed copies: noise on real training posts with their label and fold, and only what their script has."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.synthesis.perturb import SOURCE, perturb, perturbed_posts
from polar_pipeline_tests.synthesis import made

POSTS = made.make_posts()
TRAIN = POSTS[POSTS["split"] == "train"].set_index("id")


def test_copies_have_the_label_and_fold_of_a_training_post_and_name_it() -> None:
    copies = perturbed_posts(POSTS, "deu", made.CARD, made.settings(posts=100), 0)
    assert len(copies) == 100 and set(copies["source"]) == {SOURCE} and set(copies["split"]) == {"train"}
    parents = TRAIN.loc[copies["parent_id"]]
    assert (copies["fold"].to_numpy() == parents["fold"].to_numpy()).all()
    assert (copies["label"].to_numpy() == parents["label"].to_numpy()).all()
    assert [json.loads(shown) for shown in copies["shown"]] == [[parent] for parent in copies["parent_id"]]
    assert (copies["text"].to_numpy() != parents["text"].to_numpy()).all()


def test_each_post_is_copied_once_before_any_is_copied_twice_and_a_seed_gives_the_same_copies() -> None:
    one, again, other = (perturbed_posts(POSTS, "deu", made.CARD, made.settings(posts=80), seed) for seed in (0, 0, 1))
    assert one["parent_id"].is_unique and one.equals(again) and not one.equals(other)


@given(st.text(min_size=1, max_size=60), st.integers(0, 20))
def test_any_text_can_be_perturbed_and_never_becomes_empty(text: str, seed: int) -> None:
    changed = perturb(text, np.random.default_rng(seed))
    assert bool(changed.strip()) >= bool(text.strip())


@pytest.mark.parametrize(
    "text", ["\u0928\u093f\u0915\u094d\u0937\u093e" * 3, "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u554a"]
)
def test_no_accent_loses_its_letter(text: str) -> None:
    """Graphemes stay whole: a mark at the start of a text would be no writing at all."""
    import regex

    parts = set(regex.findall(r"\X", text))
    for seed in range(20):
        assert set(regex.findall(r"\X", perturb(text, np.random.default_rng(seed)))) <= parts


def test_mentions_become_anonymous() -> None:
    texts = {perturb("@anna_1 was ist denn hier los", np.random.default_rng(seed)) for seed in range(30)}
    assert any("@USER" in text or "@user" in text for text in texts)
