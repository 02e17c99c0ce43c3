"""A copy with a word or two changed is a copy, whatever the cosine says; texts that share a few words are not."""

import pytest

from polar_pipeline.curation.overlap import share_of_words, word_copies

REAL = ["Gestern im Park haben alle über die Stadt geredet und keiner hat etwas getan", "Kurz und gut"]


def test_one_or_two_words_changed_point_at_the_original() -> None:
    one = REAL[0].replace("Park", "Zoo")
    two = one.replace("Stadt", "Bahn")
    other = "Gestern im Park war es still, und über die Felder zog der Nebel hin"
    found = word_copies([*REAL, one, two, other, "Kurz und schlecht"], share_of_words(0.9), protected=2)
    assert found.like.tolist() == [-1, -1, 0, 2, -1, -1]  # the second change is nearest to the first
    assert found.similarity[2] == pytest.approx(13 / 14)


def test_real_posts_stay_and_texts_without_words_are_no_copies() -> None:
    assert word_copies([REAL[0], REAL[0]], 0.7, protected=2).like.tolist() == [-1, -1]
    assert word_copies(["!!", "!!", ""], 0.7, protected=0).like.tolist() == [-1, -1, -1]


def test_the_share_follows_the_cosine() -> None:
    assert share_of_words(1.0) == 1.0 and share_of_words(0.9) == pytest.approx(0.7)
