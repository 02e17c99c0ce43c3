"""Another task is another YAML file; mistakes in it are named."""

from pathlib import Path

import pytest

from polar_pipeline.errors import InputError
from polar_pipeline.task.card import TaskCard, load_card

OWN = """
name: hate
title: Hate speech
metric: macro-F1
label: {column: hateful, negative: fine, positive: hateful, definition: "..."}
submission: {folder: out, file: "{language}.csv"}
"""


def test_the_bundled_card_describes_the_official_columns() -> None:
    card = load_card("polar")
    assert card.label.column == "polarization"
    assert len(card.auxiliary.types) == 5
    assert len(card.auxiliary.columns) == 11
    assert card.submission.file.format(language="deu") == "pred_deu.csv"


def test_a_task_of_ones_own_needs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "hate.yaml"
    path.write_text(OWN)
    card = load_card(str(path))
    assert (card.label.column, card.auxiliary.columns, card.canaries) == ("hateful", (), ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title:", "tittle:"), r"`title` is missing; setting `tittle` is unknown"),
        (("column: hateful", "column: [1]"), r"`label.column` is \[1\]"),
        (('"{language}.csv"', "all.csv"), r"`submission.file` is 'all.csv'"),
        (("name: hate", "name: ["), "is not YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN.replace(*change))
    with pytest.raises(InputError, match=message) as caught:
        load_card(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"), [(b"- a\n", "not list"), (b"\xff", "cannot be read"), (None, "does not exist")]
)
def test_files_that_are_no_cards(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "own.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_card(str(path))


SEVERAL = """
name: moods
title: Moods
kind: KIND
label: {column: mood}
labels: [calm, {name: joy, words: [happy, 2]}, grief]
"""


def several(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "moods.yaml"
    path.write_text(SEVERAL.replace("KIND", kind))
    return path


def test_classes_and_labels(tmp_path: Path) -> None:
    card = load_card(str(several(tmp_path, "multiclass")))
    assert card.targets == ("calm", "joy", "grief") and card.classes["happy"] == card.classes["2"] == 1
    assert card.class_word(1) == "happy" and card.class_word(0) == "calm" and card.label_columns == {}
    card = load_card(str(several(tmp_path, "multilabel")))
    assert card.label_columns == {"calm": "calm", "joy": "joy", "grief": "grief"} and card.classes == {}
    types, manifestations = load_card("polar_types"), load_card("polar_manifestations")
    assert (len(types.targets), len(types.codes)) == (5, 22)
    assert (len(manifestations.targets), len(manifestations.codes)) == (6, 18)
    assert set(manifestations.codes) == set(types.codes) - {"ita", "mya", "pol", "rus"}


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("binary", "", "", "a binary task needs label.negative and label.positive and label.definition"),
        ("multiclass", "label: {column: mood}", "", "needs label.column"),
        ("multilabel", ", grief]", ", joy]", "'joy' stands for two of the `labels`"),
        ("multilabel", ", grief]", ", types]", "'types' cannot be the name"),
        ("multiclass", ", grief]", ", happy]", "'happy' stands for two"),
        ("multilabel", "[calm, {name: joy, words: [happy, 2]}, grief]", "[calm]", "at least two `labels`"),
    ],
)
def test_labels_that_do_not_fit_are_named(tmp_path: Path, kind: str, old: str, new: str, message: str) -> None:
    path = several(tmp_path, kind)
    path.write_text(path.read_text().replace(old, new) if old else path.read_text())
    with pytest.raises(InputError, match=message):
        load_card(str(path))


def test_an_empty_cell_means_neither_answer() -> None:
    """Also where the card has no names for 0 and 1, as that of several labels need not."""
    assert "" not in TaskCard(name="t", title="T", kind="multilabel", labels=["a", "b"]).label.codes
    assert "" not in load_card("polar").label.codes
