"""The train-or-test classifier: half when it cannot know, one when it can, and not fooled by duplicates."""

import pytest

from polar_pipeline.corpus.shift import POSTS_PER_SIDE, shift_auc
from polar_pipeline.errors import InputError

SYLLABLES = ["ba", "ke", "mi", "to", "lu", "ra", "ne", "so", "fi", "gu"]


def posts(count: int, first: int = 0) -> list[str]:
    """Made-up posts that differ from each other but come from one source: digits of a number as syllables."""
    numbers = ((first + number) * 7919 % 1_000_003 for number in range(count))
    return [
        " ".join(SYLLABLES[int(digit)] + SYLLABLES[-1 - int(digit)] for digit in f"{number:06d}") for number in numbers
    ]


def test_one_source_cannot_be_told_apart() -> None:
    assert 0.4 < shift_auc(posts(300), posts(300, first=300), seed=0) < 0.6


def test_two_sources_can() -> None:
    other = [text.replace("a", "ä") for text in posts(300, first=300)]
    assert shift_auc(posts(300), other, seed=0) > 0.99


def test_half_shifted_lies_between() -> None:
    half = posts(150, first=300) + [text.replace("a", "ä") for text in posts(150, first=450)]
    assert 0.65 < shift_auc(posts(300), half, seed=0) < 0.9


def test_duplicates_on_both_sides_do_not_fool_it() -> None:
    # every post is on both sides; with duplicates in different folds the classifier would learn the wrong side
    texts = posts(200)
    assert shift_auc(texts, texts, seed=0) == pytest.approx(0.5, abs=0.01)


def test_deterministic() -> None:
    train, test = posts(POSTS_PER_SIDE + 200), posts(300, first=5000)
    before = list(train)
    first, second, other = (shift_auc(train, test, seed) for seed in (0, 0, 1))
    assert first == second != other
    assert train == before


def test_a_large_side_is_sampled_from_all_of_it() -> None:
    later = [text.replace("a", "ä") for text in posts(POSTS_PER_SIDE, first=5000)]
    assert shift_auc(posts(POSTS_PER_SIDE) + later, posts(300, first=9000), seed=0) > 0.65


def test_few_posts_are_enough() -> None:
    assert 0.0 <= shift_auc(["a b", "c d"], ["e f", "g h", "i j"], seed=0) <= 1.0


@pytest.mark.parametrize(("train", "test"), [([], ["a", "b"]), (["a", "A!"], ["b", "c"]), (["a", "b"], ["c"])])
def test_too_few_posts_are_refused(train: list[str], test: list[str]) -> None:
    with pytest.raises(InputError, match="at least 2 distinct posts"):
        shift_auc(train, test, seed=0)
