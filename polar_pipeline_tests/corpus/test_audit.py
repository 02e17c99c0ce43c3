"""The audit: each finding on posts made to have exactly it."""

import re

import pandas as pd
import pytest

from polar_pipeline.corpus.audit import Audit, audit
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.errors import InputError
from polar_pipeline_tests.corpus.tables import CARD, Row, posts_of

PLAIN: list[Row] = [
    ("eng_01", "a quiet post", 0, "train"),
    ("eng_02", "one more post", 1, "train"),
    ("eng_03", "a post in dev", 1, "dev"),
    ("eng_04", "a post in test", None, "test"),
    ("eng_05", "the last in test", None, "test"),
]


def findings(*more: Row, language: str = "eng") -> Audit:
    return audit(posts_of([*PLAIN, *more]), language, CARD, seed=0)


def test_plain_posts_have_nothing_odd() -> None:
    found = findings()
    assert (found.posts_train, found.posts_dev, found.posts_test) == (2, 1, 2)
    assert (found.positive_train, found.positive_dev) == (0.5, 1.0)
    odd = {"duplicate_groups", "duplicate_rows", "conflicting_groups", "cross_split_dev", "cross_split_test",
           "repeated_ids", "foreign_script", "secondary_script", "replacement_characters", "double_question_marks",
           "not_nfc", "control_characters", "length_outliers"}  # fmt: skip
    assert found.model_dump(include=odd) == dict.fromkeys(odd, 0)
    assert found.cross_split_ids == found.repeated_id_examples == ()
    assert (found.length_min, found.length_median, found.length_max) == (12, 13.0, 16)
    assert 0 <= found.shift_auc <= 1


def test_duplicates_inside_train_and_those_that_disagree() -> None:
    found = findings(
        ("eng_11", "same", 0, "train"), ("eng_12", "SAME!", 0, "train"), ("eng_13", "s a m e", 0, "train"),
        ("eng_14", "other", 0, "train"), ("eng_15", "Other.", 1, "train"), ("eng_16", "@USER", 0, "train"),
        ("eng_17", "@USER", 1, "train"),
        ("eng_18", "twice in test", None, "test"), ("eng_19", "twice in test", None, "test"),
    )  # fmt: skip
    assert (found.duplicate_groups, found.duplicate_rows, found.conflicting_groups) == (2, 5, 1)
    assert (found.cross_split_dev, found.cross_split_test, found.cross_split_ids) == (0, 0, ())


def test_cross_split_duplicates_are_train_posts() -> None:
    more: list[Row] = [(f"eng_1{n}", f"copy {n}", 0, "train") for n in range(7)]
    more += [(f"eng_2{n}", f"Copy {n}!", None, "test") for n in range(7)]
    more += [("eng_30", "COPY 0", 1, "dev"), ("eng_31", "copy 6", None, "test")]
    found = findings(*more)
    assert (found.cross_split_dev, found.cross_split_test) == (1, 7)
    assert found.cross_split_ids == ("eng_10", "eng_11", "eng_12", "eng_13", "eng_14")


def test_ids_in_several_splits() -> None:
    found = findings(("eng_01", "x in test", None, "test"), ("eng_03", "y in test", None, "test"))
    assert (found.repeated_ids, found.repeated_id_examples) == (2, ("eng_01", "eng_03"))


def test_scripts_of_the_language_and_others() -> None:
    found = findings(
        ("hin_1", "यह एक पोस्ट है", 0, "train"), ("hin_2", "привет мир", 0, "train"), ("hin_3", "123 😀", 0, "train"),
        language="hin",
    )  # fmt: skip
    # the five plain posts are in Latin, which the registry has as Hindi's second script
    assert (found.secondary_script, found.foreign_script) == (5, 1)
    assert findings(("eng_9", "привет мир", 0, "train")).foreign_script == 1


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("broken \ufffd text", "replacement_characters"),
        ("what?? now", "double_question_marks"),
        ("cafe\u0301 noir ok", "not_nfc"),
        ("a \x07 bell rings", "control_characters"),
        ("x" * 4000, "length_outliers"),
        ("x", "length_outliers"),
    ],
)
def test_odd_texts_are_counted_once_per_text(text: str, finding: str) -> None:
    odd = ("replacement_characters", "double_question_marks", "not_nfc", "control_characters", "length_outliers")
    found = findings(("eng_11", text, 0, "train")).model_dump(include=set(odd))
    assert found == {name: int(name == finding) for name in odd}


def test_line_breaks_and_tabs_are_no_control_characters() -> None:
    assert findings(("eng_11", "a\r\nb\tc d e f", 0, "train")).control_characters == 0


def test_types_that_the_language_has() -> None:
    posts = posts_of(PLAIN)
    posts.loc[0, "political"], posts.loc[1, "political"], posts.loc[2, "political"], posts.loc[0, "other"] = 1, 1, 1, 0
    assert audit(posts, "eng", CARD, seed=0).types_train == {"political": 2, "other": 0}


def test_an_unknown_language() -> None:
    with pytest.raises(InputError, match="'xxx' is no language code"):
        findings(language="xxx")


def test_the_same_json_every_time() -> None:
    found = findings()
    assert Audit.model_validate_json(found.model_dump_json()) == found == findings()


def test_posts_of_another_language_are_noticed() -> None:
    german, english = (read_posts(bundled_folder(), code, CARD) for code in ("deu", "eng"))
    mixed = pd.concat([german, english.assign(id="deu_" + english["id"])], ignore_index=True)
    found = audit(mixed, "deu", CARD, 0)
    assert 0.2 < found.other_languages["eng"] < 0.6
    assert re.fullmatch(r"of its posts, \d\d% in English, not in German", found.language_doubt)
    assert audit(german, "deu", CARD, 0).language_doubt == ""


def test_a_side_that_is_missing_is_no_shift() -> None:
    posts = read_posts(bundled_folder(), "deu", CARD).query("split == 'train'").reset_index(drop=True)
    found = audit(posts, "deu", CARD, 0)
    assert (found.shift_auc, found.positive_dev, found.posts_test) == (None, None, 0)
