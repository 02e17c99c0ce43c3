"""Each stage objects to its own, the first objection counts, and hostile texts take no longer than long ones."""

import time

import pytest

from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.curation.cleaning import clean
from polar_pipeline.curation.quality_filter import QualityFilter
from polar_pipeline.task.card import load_card
from polar_pipeline.task.languages import language

CARD = load_card("polar")
POSTS = read_posts(bundled_folder(), "deu", CARD)["text"].tolist()
FILTER = QualityFilter(language("deu"), POSTS, CARD.label)


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        (" ", "empty"),
        (f"Polarisiert: {POSTS[0]}", "leakage"),
        ("Zu kurz"[:2], "length"),
        ("The government has no idea what it is doing to us all", "language"),
        (f"Gerne, hier ist ein Beitrag: {POSTS[0]}", "meta"),
        (f"{POSTS[0]}</article>", "markup"),
    ],
)
def test_each_stage_objects_to_its_own(text: str, stage: str) -> None:
    (found,) = FILTER.objections([text])
    assert found is not None and found.stage == stage


def test_real_posts_pass() -> None:
    assert sum(found is not None for found in FILTER.objections(POSTS)) <= 0.03 * len(POSTS)


@pytest.mark.parametrize(
    "part", ["(", ".", "**a ", "| ", "#polarized ", "label: ", "- polarized", "<p ", '"a', "not a ", "\n", "1. ", "[[*"]
)
def test_hostile_texts_take_no_longer_than_long_ones(part: str) -> None:
    text = part * (100_000 // len(part))
    start = time.perf_counter()
    FILTER.objections([clean(text)], [text])
    assert time.perf_counter() - start < 3
