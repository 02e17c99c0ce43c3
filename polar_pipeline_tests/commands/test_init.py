"""`polar init`: a file that people have becomes a card and a profile that the rest of the package reads."""

import json
import random
from pathlib import Path
from typing import Literal

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


def english(count: int = 60) -> list[tuple[object, ...]]:
    return list(POSTS["eng"][["text", "label"]].head(count).itertuples(index=False, name=None))


def lines(*rows: object) -> str:
    """A CSV whose fields may be quoted by hand."""
    return "\n".join(map(str, rows)) + "\n"


ROWS = [f'{number},"{str(text).replace(chr(34), chr(39))}",{label}' for number, (text, label) in enumerate(german())]
LAYOUTS = {
    "a title with commas": lines("Posts of the town, exported by me", "no,text,label", *ROWS),
    "two titles": lines("# exported by me, 2024", "# all rights reserved", "", "no,text,label", *ROWS),
    "a padded title": lines("Posts, exported 1 March,", ",,", "no,text,label", *ROWS),
    "units": lines("no,text,label", "(number),(free text),(0/1)", *ROWS),
    "types": lines("no,text,label", "continuous,string,discrete", ",meta include=True,class", *ROWS),
    "blanks before quotes": lines("no, text, label", *(row.replace(',"', ', "') for row in ROWS)),
    "single quotes": lines("no,text,label", *(row.replace("'", "").replace('"', "'") for row in ROWS)),
    "capitals": lines("No,TEXT,Label", *ROWS),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_stands_around_the_rows(layout: str, tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text(LAYOUTS[layout], encoding="utf-8")
    found = init(tmp_path / "posts.csv", "--to", tmp_path, "--text", "text", "--label", "label")
    assert found.exit_code == 0, found.exception
    posts = loaded(tmp_path / "posts.yaml").posts("deu")
    assert posts["label"].tolist() == POSTS["deu"].head(80)["label"].tolist()
    assert init(tmp_path / "posts.csv", "--to", tmp_path / "guessed").exit_code == 0


@pytest.mark.parametrize(
    ("values", "codes"),
    [(("Mon", "Tue"), ["deu"]), (("Ben", "Ana"), ["deu"]), (("A", "A"), ["deu"]), (("de", "en"), ["deu", "eng"])],
)
def test_short_words_are_languages_only_if_the_posts_are_in_them(
    values: tuple[str, str], codes: list[str], tmp_path: Path
) -> None:
    rows = [(values[0], *row) for row in german(count=60)]
    rows += [(values[1], *row) for row in (english() if len(codes) > 1 else german()[60:80])]
    found = init(write(tmp_path / "posts.csv", "c,text,label", rows), "--to", tmp_path)
    assert found.exit_code == 0 and sorted(loaded(tmp_path / "posts.yaml").codes) == codes
    assert ("column `c` holds the languages was guessed" in found.output) == (len(codes) > 1)


def test_rows_without_a_language_are_left_out(tmp_path: Path) -> None:
    rows = [("de" if number % 10 else ("und", "", "xx")[number % 3], *row) for number, row in enumerate(german())]
    found = init(write(tmp_path / "posts.csv", "lang,text,label", rows), "--to", tmp_path)
    assert "8 rows have no language in `lang` and are left out" in found.output
    assert len(loaded(tmp_path / "posts.yaml").posts("deu")) == 72


def test_posts_of_two_languages_are_not_taken_for_one(tmp_path: Path) -> None:
    path = write(tmp_path / "posts.csv", "text,label", [*german(), *english()])
    assert "the posts are in several languages (" in refusal(path, "--to", tmp_path)
    assert init(path, "--to", tmp_path, "--language", "de").exit_code == 0


@pytest.mark.parametrize(
    "name", ["my_posts.csv", "is_it.csv", "train_de.csv", "german-data.csv", "dev.csv", "test.csv"]
)
def test_the_name_of_a_file_is_no_reason_to_misread_it(name: str, tmp_path: Path) -> None:
    assert init(write(tmp_path / name, "text,label", german()), "--to", tmp_path, "--name", "own").exit_code == 0
    posts = loaded(tmp_path / "own.yaml").posts("deu")
    assert set(posts["split"]) == {"train"} and len(posts) == 80


def test_scripts_without_blanks(tmp_path: Path) -> None:
    rows = [(f"市長は昨日、自転車道の計画を発表しました。第{number}号", number % 2) for number in range(60)]
    found = init(write(tmp_path / "posts.csv", "x,y", rows), "--to", tmp_path)
    assert "text `x`, label `y`" in found.output and "Japanese (jpn)" in found.output


def test_how_the_file_was_read_is_in_the_card(tmp_path: Path) -> None:
    path = write(tmp_path / "posts.csv", "text^label", german(), "^", "cp850")
    assert init(path, "--to", tmp_path, "--sep", "^", "--encoding", "cp850").exit_code == 0
    posts = loaded(tmp_path / "posts.yaml").posts("deu")
    # umlauts are read as they were written
    assert posts["text"].tolist() == [text.encode("cp850", errors="ignore").decode("cp850") for text, _ in german()]


def test_marks_of_missing_labels_are_no_labels(tmp_path: Path) -> None:
    marks = ["nan", "NA", "?", "n/a"]
    rows = [
        (text, marks[number // 10 % 4] if number % 10 == 0 else label) for number, (text, label) in enumerate(german())
    ]
    found = init(write(tmp_path / "posts.csv", "text,label", rows), "--to", tmp_path)
    assert "8 rows have '?', 'NA', 'n/a', 'nan' as their label, which is taken for none" in found.output
    posts = loaded(tmp_path / "posts.yaml").posts("deu")
    assert posts["split"].value_counts().to_dict() == {"train": 72, "test": 8}


def test_a_folder_with_other_files(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write(data / "train.csv", "Text,Label", german()[:50])
    write(data / "dev.csv", "text,label", german()[50:])
    (data / "LICENSE.txt").write_text("All rights, reserved.\nTwo lines.\n")
    (data / "about.txt").write_text("These posts were collected.\nTwo lines.\n")
    assert init(data, "--to", tmp_path).exit_code == 0
    assert loaded(tmp_path / "data.yaml").posts("deu")["split"].value_counts().to_dict() == {"train": 50, "dev": 30}
    write(data / "other.csv", "comment,hate", german())
    (data / "train.csv").unlink()
    (data / "dev.csv").unlink()
    write(data / "more.csv", "tweet,hate", german())
    assert "more.csv has no column `comment`, which" in refusal(
        data, "--to", tmp_path, "--name", "x", "--text", "comment"
    )


def test_labels_that_are_words_in_several_columns(tmp_path: Path) -> None:
    rows = [
        (text, ("nein", "ja")[number % 2], ("nein", "ja")[number % 3 == 0]) for number, (text, _) in enumerate(german())
    ]
    path = write(tmp_path / "posts.csv", "text,wut,angst", rows)
    assert init(path, "--to", tmp_path, "--label", "wut", "--label", "angst").exit_code == 0
    assert loaded(tmp_path / "posts.yaml").posts("deu")[["wut", "angst"]].sum().tolist() == [40, 27]


@pytest.mark.parametrize(
    ("header", "cells", "options", "sentence"),
    [
        ("text,a,b", ("gut", "schlecht"), ("--label", "a", "--label", "b"), "column `a` of .* has 'gut', 'schlecht'"),
        ("text,a,b", ("x", ""), (), "columns 'a', 'b' of .* hold a mark or nothing"),
        ("text,label_1,label_2,label_3", ("1", "0"), (), "seem to hold what several annotators said"),
        ("text,label,b", ("1", "0"), ("--id", "b"), "column `b` of .* repeats 78 ids"),
        ("text,label,b", ("1", "0"), ("--id", "text", "--text", "TEXT"), "column `text` of .* was given twice"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_used(
    header: str, cells: tuple[str, str], options: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    width = header.count(",")
    rows = [
        (text, *(cells[(number + place) % 2] for place in range(width))) for number, (text, _) in enumerate(german())
    ]
    with pytest.raises(InputError, match=sentence):
        raise InputError(refusal(write(tmp_path / "posts.csv", header, rows), "--to", tmp_path, *options))


def test_a_guessed_label_is_called_one(tmp_path: Path) -> None:
    rows = [(*row, ("web", "app")[number % 2]) for number, row in enumerate(german())]
    found = init(write(tmp_path / "posts.csv", "text,verdict,source", rows), "--to", tmp_path)
    assert "that `source` holds the labels was guessed: 'verdict' could too; --label says it" in found.output
    named = init(write(tmp_path / "b.csv", "text,label,source", rows), "--to", tmp_path)
    assert "label `label`" in named.output and "labels was guessed" not in named.output


@pytest.mark.parametrize(("name", "profile"), [("2024-03 posts.csv", "posts-2024-03-posts"), ("投稿.csv", "posts")])
def test_any_name_of_a_file_gives_a_profile(name: str, profile: str, tmp_path: Path) -> None:
    assert init(write(tmp_path / name, "text,label", german()), "--to", tmp_path).exit_code == 0
    assert loaded(tmp_path / f"{profile}.yaml").codes == ["deu"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"__label__hate a text\n__label__ok b\n", "in the format of fastText"),
        (b"<!DOCTYPE html><p>x", "is a page of HTML or XML"),
        (b"\x89PNG\r\n\x1a\n", "is a picture"),
        (b"BZh91AY", "is packed with bzip2"),
        (b"0,a text,0\n1,b text,1\n", "seems to have no header, because `0` is no name"),
        (b"\n  \n\n", "is empty"),
    ],
)
def test_files_that_are_no_tables(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_bytes(content)
    assert sentence in refusal(tmp_path / "posts.csv", "--to", tmp_path)


def test_a_folder_of_a_file_per_post(tmp_path: Path) -> None:
    for number in range(30):
        folder = tmp_path / "data" / ("pos", "neg")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.txt").write_text("a post")
    assert "holds 30 .txt files, which seem to be a post each" in refusal(tmp_path / "data", "--to", tmp_path)


@pytest.mark.parametrize("orient", ["records", "columns", "split", "table"])
def test_json_as_pandas_writes_it(orient: Literal["records", "columns", "split", "table"], tmp_path: Path) -> None:
    frame = pd.DataFrame(german(), columns=["text", "label"])
    frame.to_json(tmp_path / "posts.json", orient=orient, force_ascii=False)
    assert init(tmp_path / "posts.json", "--to", tmp_path, "--label", "label").exit_code == 0
    assert loaded(tmp_path / "posts.yaml").posts("deu")["label"].sum() == frame["label"].astype(int).sum()
