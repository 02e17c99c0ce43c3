"""`polar init`: a file that people have becomes a card and a profile that the rest of the package reads."""

import json
import random
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from polar_pipeline.cli import polar
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline_tests.corpus.tables import CARD

POSTS = {code: read_posts(bundled_folder(), code, CARD).query("split == 'train'") for code in ("deu", "eng")}


def write(path: Path, header: str, rows: list[tuple[object, ...]], sep: str = ",", encoding: str = "utf-8") -> Path:
    lines = [header, *(sep.join('"' + str(cell).replace('"', '""') + '"' for cell in row) for row in rows)]
    path.write_bytes("\n".join(lines).encode(encoding, errors="ignore"))
    return path


def german(words: tuple[str, str] = ("0", "1"), count: int = 80) -> list[tuple[object, ...]]:
    table = POSTS["deu"].head(count)
    return [(text, words[label]) for text, label in zip(table["text"], table["label"], strict=True)]


def init(*arguments: object) -> Result:
    return CliRunner().invoke(polar, ["init", *map(str, arguments)], standalone_mode=False, catch_exceptions=True)


def refusal(*arguments: object) -> str:
    found = init(*arguments)
    assert isinstance(found.exception, InputError), found.output
    return str(found.exception)


def loaded(profile: Path) -> Project:
    return Project.load(str(profile), {"POLAR_HOME": str(profile.parent / "home")})


def test_a_german_file_in_latin_letters_with_semicolons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "Kommentare 2024.csv", "Kommentar;Polarisierend", german(("nein", "ja")), ";", "cp1252")
    found = init("Kommentare 2024.csv")
    assert found.exit_code == 0, found.output
    for said in ("80 rows", "text `Kommentar`, label `Polarisierend`", "German (deu)", "'ja'", "(positive)", "guessed"):
        assert said in found.output
    project = loaded(tmp_path / "kommentare-2024.yaml")
    assert project.codes == ["deu"] and project.card.label.words == {"nein": 0, "ja": 1}
    posts = project.posts("deu")
    assert len(posts) == 80 and posts["label"].tolist() == POSTS["deu"].head(80)["label"].tolist()
    assert posts["fold"].nunique() == 5
    # the profile finds its files from any folder
    monkeypatch.chdir("/")
    assert len(loaded(tmp_path / "kommentare-2024.yaml").posts("deu")) == 80


def test_languages_and_splits_by_their_columns(tmp_path: Path) -> None:
    rows = [(code[:2], text, label, random.Random(text).choice(["train", "test"])) for code, table in POSTS.items()
            for text, label in zip(table["text"].head(60), table["label"].head(60), strict=True)]  # fmt: skip
    path = write(tmp_path / "all.tsv", "lang\ttweet\tclass\tsubset", rows, "\t")
    assert init(path, "--to", tmp_path).exit_code == 0
    project = loaded(tmp_path / "all.yaml")
    assert sorted(project.codes) == ["deu", "eng"]
    assert {split for code in project.codes for split in project.posts(code)["split"]} == {"train", "test"}


def test_what_is_odd_is_said(tmp_path: Path) -> None:
    rows = [
        *german(),
        *german(count=3),
        (german()[0][0], 1 - int(str(german()[0][1]))),
        ("\u200b", 1),
        ("ohne Urteil, ein Satz", ""),
    ]
    found = init(write(tmp_path / "posts.csv", "text,label", rows), "--to", tmp_path)
    for said in (
        "4 posts repeat an earlier one",
        "1 groups of repeated posts have different labels",
        "1 rows have no text and are left out",
        "1 rows have no label: they are predicted",
        "few posts",
    ):
        assert said in found.output
    assert len(loaded(tmp_path / "posts.yaml").posts("deu")) == 85


def test_a_file_of_two_languages_is_noticed(tmp_path: Path) -> None:
    english = list(POSTS["eng"][["text", "label"]].head(40).itertuples(index=False, name=None))
    found = init(write(tmp_path / "deu.csv", "text,label", [*german(), *english]), "--to", tmp_path)
    assert "posts in other languages: " in found.output and "in English" in found.output


def test_several_classes_are_a_task_of_their_own_or_one_of_them_is_to_be_found(tmp_path: Path) -> None:
    rows = [(text, word) for (text, _), word in zip(german(), ["gut", "schlecht", "egal", "gut"] * 20, strict=True)]
    path = write(tmp_path / "posts.csv", "text,stimmung", rows)
    assert "classes: 'egal' 20, 'gut' 40, 'schlecht' 20" in init(path, "--to", tmp_path).output
    card = loaded(tmp_path / "posts.yaml").card
    assert card.kind == "multiclass" and card.targets == ("egal", "gut", "schlecht")
    assert loaded(tmp_path / "posts.yaml").posts("deu")["label"].value_counts().to_dict() == {1: 40, 0: 20, 2: 20}
    assert init(path, "--to", tmp_path, "--positive", "schlecht", "--name", "one").exit_code == 0
    assert loaded(tmp_path / "one.yaml").posts("deu")["label"].sum() == 20


def test_columns_of_flags_are_several_labels(tmp_path: Path) -> None:
    rows = [(text, number % 2, number % 3 == 0, number % 5 == 0) for number, (text, _) in enumerate(german())]
    path = write(tmp_path / "posts.csv", "text,wut,angst,trauer", rows)
    found = init(path, "--to", tmp_path)
    assert "labels, of which a post may have several: 'wut' 40, 'angst' 27, 'trauer' 16" in found.output, found.output
    project = loaded(tmp_path / "posts.yaml")
    assert project.card.kind == "multilabel"
    assert project.posts("deu")[["wut", "angst", "trauer"]].sum().tolist() == [40, 27, 16]
    assert init(path, "--to", tmp_path, "--label", "wut", "--label", "angst", "--name", "two").exit_code == 0
    assert loaded(tmp_path / "two.yaml").card.targets == ("wut", "angst")
    # where one column is named as a label, the others are no labels
    both = write(tmp_path / "both.csv", "text,label,angst,trauer", rows)
    assert init(both, "--to", tmp_path).exit_code == 0 and loaded(tmp_path / "both.yaml").card.kind == "binary"


def test_too_many_classes_are_no_classes(tmp_path: Path) -> None:
    rows = [(f"{text} {number}", f"class {number % 60}") for number, (text, _) in enumerate(german() * 6)]
    path = write(tmp_path / "posts.csv", "text,label", rows)
    assert "has 60 different labels" in refusal(path, "--to", tmp_path, "--label", "label")
    assert not list(tmp_path.glob("*.yaml"))


def test_a_file_without_a_header_is_named(tmp_path: Path) -> None:
    rows = german()
    path = write(tmp_path / "posts.csv", f'"{rows[0][0]}",{rows[0][1]}', rows[1:])
    assert "posts.csv seems to have no header, because " in refusal(path, "--to", tmp_path)


def test_columns_that_cannot_be_what_their_names_say_are_named(tmp_path: Path) -> None:
    rows = [(number % 70, text, ("no", "yes")[int(str(label))], "holdout" if number % 2 else "train", "Denglisch")
            for number, (text, label) in enumerate(german())]  # fmt: skip
    found = init(write(tmp_path / "posts.csv", "id,text,label,split,lang", rows), "--to", tmp_path)
    assert "column `id` repeats 10 ids, so it is not used" in found.output
    assert "column `split` is not used, because of 'holdout': all rows are taken" in found.output
    assert "column `lang` is not used, because of 'Denglisch'" in found.output
    assert "label `label`" in found.output and "guessed" not in found.output
    assert loaded(tmp_path / "posts.yaml").posts("deu")["id"].is_unique


def test_codes_that_yaml_takes_for_other_things(tmp_path: Path) -> None:
    assert (
        init(write(tmp_path / "posts.csv", "text,label", german()), "--to", tmp_path, "--language", "no").exit_code == 0
    )
    assert loaded(tmp_path / "posts.yaml").codes == ["nor"]


@pytest.mark.parametrize(("labels", "guessed"), [(("1", "2"), True), (("0", "1"), False), (("-1", "1"), True)])
def test_a_guess_of_the_positive_label_is_called_one(labels: tuple[str, str], guessed: bool, tmp_path: Path) -> None:
    found = init(write(tmp_path / "posts.csv", "text,label", german(labels)), "--to", tmp_path)
    assert ("is the positive label was guessed" in found.output) == guessed


def test_labels_that_differ_in_capitals_are_the_same(tmp_path: Path) -> None:
    rows = [
        (text, ("nein", "Ja", "NEIN", "ja")[2 * (number % 2) + int(str(label))])
        for number, (text, label) in enumerate(german())
    ]
    assert init(write(tmp_path / "posts.csv", "text,label", rows), "--to", tmp_path).exit_code == 0
    assert loaded(tmp_path / "posts.yaml").posts("deu")["label"].tolist() == POSTS["deu"].head(80)["label"].tolist()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--text", "nothing"), "has no column `nothing` (it has `text`, `label`): correct --text"),
        (("--positive", "9"), "no post of .* has '9' in `label`: use one of '0', '1'"),
        (("--language", "qq"), "--language qq is no language"),
        (("--name", "demo"), "demo is the name of a bundled profile"),
    ],
)
def test_wrong_options(arguments: tuple[str, str], sentence: str, tmp_path: Path) -> None:
    import re

    said = refusal(write(tmp_path / "posts.csv", "text,label", german()), "--to", tmp_path, *arguments)
    assert re.search(sentence.replace("(", r"\(").replace(")", r"\)"), said) and not list(tmp_path.glob("*.yaml"))


def test_nothing_is_written_over(tmp_path: Path) -> None:
    path = write(tmp_path / "posts.csv", "text,label", german())
    (tmp_path / "posts.yaml").write_text("mine")
    assert "posts.yaml exists already" in refusal(path, "--to", tmp_path)
    assert (tmp_path / "posts.yaml").read_text() == "mine"


def test_hostile_names_stay_data(tmp_path: Path) -> None:
    rows = [(text, ("a: {b}", '"#x')[int(str(label))]) for text, label in german()]
    path = write(tmp_path / "posts.csv", '"text: [x]","label # y"', rows)
    found = init(path, "--to", tmp_path, "--text", "text: [x]", "--label", "label # y", "--positive", '"#x')
    assert found.exit_code == 0, found.output
    assert loaded(tmp_path / "posts.yaml").posts("deu")["label"].tolist() == POSTS["deu"].head(80)["label"].tolist()


LISTS = {
    "semicolons": ("; ".join, ";"),
    "commas": (", ".join, ","),
    "bars": ("|".join, "|"),
    "JSON": (json.dumps, ","),
    "Python": (repr, ","),
}  # fmt: skip


def several_labels(count: int = 80) -> list[tuple[str, list[str]]]:
    return [
        (text, [name for name, every in (("Wut", 2), ("große Angst", 3), ("Trauer", 5)) if number % every == 0])
        for number, (text, _) in enumerate(german(count=count))
    ]  # fmt: skip


@pytest.mark.parametrize("way", LISTS)
def test_several_labels_in_a_cell(way: str, tmp_path: Path) -> None:
    written, separator = LISTS[way]
    rows = [(text, written(names)) for text, names in several_labels()]
    found = init(write(tmp_path / "posts.csv", "text,emotions", rows), "--to", tmp_path)
    assert "'große Angst' 27, 'Trauer' 16, 'Wut' 40" in found.output, found.output
    assert "22 posts have none of the labels" in found.output
    project = loaded(tmp_path / "posts.yaml")
    assert (project.card.kind, project.card.label.separator) == ("multilabel", separator)
    posts = project.posts("deu")
    assert posts[["Wut", "große Angst", "Trauer"]].sum().tolist() == [40, 27, 16]
    assert posts["label"].sum() == 58 and len(posts) == 80


def test_words_with_commas_are_no_lists(tmp_path: Path) -> None:
    words = ("gut, aber kurz", "schlecht, und lang")
    rows = [(text, words[int(str(label))]) for text, label in german()]
    assert init(write(tmp_path / "posts.csv", "text,label", rows), "--to", tmp_path).exit_code == 0
    assert loaded(tmp_path / "posts.yaml").card.kind == "binary"


def test_nested_json(tmp_path: Path) -> None:
    lines = [json.dumps({"data": {"text": text, "user": {"id": 3}}, "label": label}) for text, label in german()]
    (tmp_path / "posts.jsonl").write_text("\n".join(lines))
    assert "text `data.text`, label `label`" in init(tmp_path / "posts.jsonl", "--to", tmp_path).output
    assert len(loaded(tmp_path / "posts.yaml").posts("deu")) == 80


def test_a_wrong_separator_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "posts.csv", "text;label", german(), ";")
    assert "posts.csv is separated by semicolons and --sep says otherwise" in refusal(
        path, "--to", tmp_path, "--sep", ","
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".parquet"])
def test_posts_from_standard_input_are_kept(suffix: str, tmp_path: Path) -> None:
    frame = pd.DataFrame(german(), columns=["text", "label"])
    content = {
        ".csv": frame.to_csv(index=False, sep=";").encode(),
        ".jsonl": frame.to_json(orient="records", lines=True).encode(),
        ".json": frame.to_json(orient="records").encode(),
        ".parquet": frame.to_parquet(),
    }[suffix]
    command = ["init", "-", "--name", "piped", "--to", str(tmp_path)]
    done = CliRunner().invoke(polar, command, input=content, standalone_mode=False)
    assert done.exit_code == 0, done
    assert (tmp_path / f"piped{suffix}").read_bytes() == content
    assert len(loaded(tmp_path / "piped.yaml").posts("deu")) == 80
    again = CliRunner().invoke(polar, command, input=content, standalone_mode=False)
    assert isinstance(again.exception, InputError) and "exists already" in str(again.exception)
    empty = CliRunner().invoke(polar, ["init", "-", "--to", str(tmp_path / "none")], input=b"", standalone_mode=False)
    assert isinstance(empty.exception, InputError) and not list((tmp_path / "none").glob("*"))
