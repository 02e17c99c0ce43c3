"""Posts that a team has already: read in any form, refused with the row, and given the fold of what they come from."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_tests
from hypothesis import strategies as st

from polar_pipeline.commands.synth_export import exported, json_lines, spreadsheet_csv
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.curation.curate import curate, for_backbones, funnel
from polar_pipeline.curation.embedding import NgramEmbedder
from polar_pipeline.curation.fold_leakage import fold_leaks, likely_parents
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Ints
from polar_pipeline.settings.curation import CurationSettings
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.storage.fingerprint import file_sha256
from polar_pipeline.synthesis.from_file import files_sha256, original_text, posts_from_file, without_formula
from polar_pipeline.task.card import Columns, Label, TaskCard
from polar_pipeline_tests.conftest import Site
from polar_pipeline_tests.synthesis import made

POSTS = made.make_posts()
TRAIN = POSTS[POSTS["split"] == "train"].set_index("id")
DEV, TEST = (POSTS.loc[POSTS["split"] == split, "id"].iloc[0] for split in ("dev", "test"))
MADE_UP = ["Der Hafen schläft", "Wer singt, gewinnt", "Zwölf Boxkämpfer jagen Viktor", "Kein Fisch ohne Rad"]


def none_alike(texts: list[str], real: list[str]) -> Ints:
    return np.full(len(texts), -1)


def settings(path: Path) -> SynthesisSettings:
    return SynthesisSettings(source="file", path=str(path))


def read(path: Path, language: str = "deu", card: TaskCard = made.CARD, near: Any = none_alike) -> pd.DataFrame:
    return posts_from_file(POSTS, language, card, settings(path), near, lambda _: None)


def write(folder: Path, rows: list[dict[str, Any]], name: str = "deu.csv") -> Path:
    path, frame = folder / name, pd.DataFrame(rows)
    path.parent.mkdir(exist_ok=True, parents=True)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def row(text: str = MADE_UP[0], label: Any = 1, **more: Any) -> dict[str, Any]:
    return {"text": text, "polarization": label, **more}


@pytest.mark.parametrize("name", ["deu.csv", "deu.tsv", "deu.jsonl", "deu.parquet"])
def test_a_file_of_any_form_becomes_a_table_of_synthetic_posts(tmp_path: Path, name: str) -> None:
    rows = [row(MADE_UP[0], "polarized", parent_id="deu_0003"), row(MADE_UP[1], "0", parent_id="")]
    posts = read(write(tmp_path, rows, name))
    assert posts["id"].is_monotonic_increasing
    posts = posts.set_index("text")
    assert posts["label"].to_dict() == {MADE_UP[0]: 1, MADE_UP[1]: 0}
    assert set(posts["source"]) == {"file"} and set(posts["split"]) == {"train"} and set(posts["request"]) == {""}
    assert posts["id"].str.match(r"deu_file_[0-9a-f]{16}$").all()
    assert posts["parent_id"].to_dict() == {MADE_UP[0]: "deu_0003", MADE_UP[1]: ""}
    assert posts.loc[MADE_UP[0], "fold"] == TRAIN.loc["deu_0003", "fold"]
    assert posts["shown"].to_dict() == {MADE_UP[0]: '["deu_0003"]', MADE_UP[1]: "[]"}
    assert posts[list(made.CARD.auxiliary.columns)].isna().all(axis=None)


def test_columns_and_words_are_those_of_the_card(tmp_path: Path) -> None:
    label = Label(column="Klasse", negative="mild", positive="wild", definition="d", words={"jein": 0}, missing=("?",))
    columns = Columns(text="Satz", id="Nr", language="Sprache")
    card = made.CARD.model_copy(update={"label": label, "columns": columns, "id_begins": ""})
    rows = [{"Nr": "a", "Satz": MADE_UP[0], "Klasse": "WILD", "Sprache": "German"},
            {"Nr": "b", "Satz": MADE_UP[1], "Klasse": "jein", "Sprache": "de"}]  # fmt: skip
    posts = read(write(tmp_path, rows, "x.csv"), card=card)
    assert posts[["id", "text", "label"]].to_numpy().tolist() == [["a", MADE_UP[0], 1], ["b", MADE_UP[1], 0]]
    with pytest.raises(InputError, match=r"row 2 \(line 3\): column `Klasse` is '', which should be .*label the post"):
        read(write(tmp_path, [rows[0], rows[1] | {"Klasse": "?"}], "x.csv"), card=card)


def test_languages_are_told_by_a_column_or_by_the_name_of_the_file(tmp_path: Path) -> None:
    rows = [row(MADE_UP[0], language="de"), row(MADE_UP[1], language="eng"), row(MADE_UP[2], language="English")]
    path = write(tmp_path, rows, "my_own.csv")  # my is a code too, but the rows say it themselves
    assert list(read(path)["text"]) == MADE_UP[:1] and sorted(read(path, "eng")["text"]) == MADE_UP[1:3]
    assert read(path, "swa").empty
    for name, text in (("deu.csv", MADE_UP[0]), ("eng.jsonl", MADE_UP[1])):
        write(tmp_path / "folder", [row(text)], name)
    assert list(read(tmp_path / "folder")["text"]) == MADE_UP[:1]
    assert list(read(tmp_path / "folder", "eng")["text"]) == MADE_UP[1:2]
    said: list[str] = []
    empty = posts_from_file(POSTS, "swa", made.CARD, settings(tmp_path / "folder"), none_alike, said.append)
    assert empty.empty and list(empty.columns) == list(read(path).columns) and "no synthetic post" in said[0]


def test_files_are_known_by_their_hashes_language_by_language(tmp_path: Path) -> None:
    german, english = (write(tmp_path / "folder", [row()], f"{code}.csv") for code in ("deu", "eng"))
    both = settings(tmp_path / "folder")
    assert files_sha256(both, "deu", ("deu", "eng")) == {"deu.csv": file_sha256(german)}
    assert files_sha256(settings(english), "deu", ("deu", "eng")) == {"eng.csv": file_sha256(english)}
    assert files_sha256(settings(tmp_path / "gone.csv"), "deu", ("deu", "eng")) == {}


LISTED = json.dumps(["deu_0000", "deu_0005"])
REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "label": ([row(), row(MADE_UP[1], "maybe")], r"deu.csv: row 2 \(line 3\): column `polarization` is 'maybe', which "
              "should be 0 or 1: correct it."),
    "no label": ([row(label="")], r"row 1 \(line 2\): column `polarization` is '', .*label the post or remove"),
    "text": ([row(" \u200b")], r"row 1 \(line 2\): column `text` is .*write one or remove the row"),
    "no column": ([{"text": "a"}], "deu.csv has no column `polarization`: add it to the header"),
    "no text": ([{"post": "a", "polarization": 1}], "deu.csv has no column `text`: add it to the header, or name"),
    "same id": ([row(id="a"), row(MADE_UP[1], id="b"), row(MADE_UP[2], id="a"), row(MADE_UP[3], id="b")],
                r"row 3 \(line 4\): column `id` is 'a', which an earlier row has too: .* \(1 more such problem\)"),
    "id of a real post": ([row(id=TEST)], rf"row 1 \(line 2\): column `id` is '{TEST}', which is the id of a real "
                          "post: give it another or none, and name the post that it was made from as `parent_id`"),
    "unknown parent": ([row(), row(MADE_UP[1], parent_id="deu_9999")],
                       r"row 2 \(line 3\): column `parent_id` has 'deu_9999', which is no post of deu: correct it"),
    "parent of dev": ([row(parent_id=DEV)], rf"column `parent_id` has '{DEV}', which is of dev, and only posts of"),
    "parent of test": ([row(parent_id=TEST)], "which is of test, and only posts of train .*: remove the row"),
    "unknown shown": ([row(shown='["deu_0000", "x"]')], "column `shown` has 'x', which is no post of deu"),
    "no list": ([row(shown="deu_0000")], "column `shown` is 'deu_0000', which is no JSON list of ids: correct it"),
    "two folds": ([row(parent_id="deu_0001", shown=LISTED)], "name posts of the folds 0, 1, and a model sees all or"),
    "canary": ([row(f"hi {made.CARD.canaries[0]}")], r"row 1 \(line 2\): column `text` contains a canary.*remove"),
    "language": ([row(language="no idea")], "column `language` is 'no idea', which is no language"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_one_sentence_with_file_row_column_and_remedy(tmp_path: Path, what: str) -> None:
    rows, sentence = REFUSED[what]
    with pytest.raises(InputError, match=sentence) as error:
        read(write(tmp_path, rows))
    assert str(tmp_path / "deu.csv") in str(error.value) and "\n" not in str(error.value)


def test_missing_files_and_languages_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"synthesis.path .*gone.csv does not exist: correct it."):
        read(tmp_path / "gone.csv")
    with pytest.raises(InputError, match=r"holds no file of posts"):
        read(tmp_path)
    path = write(tmp_path, [row()], "posts.csv")
    with pytest.raises(InputError, match=r"does not say which language .*add a column `language`, or name the file"):
        read(path)
    alone = made.CARD.model_copy(update={"languages": ("deu",)})
    assert len(read(path, card=alone)) == 1


def test_bad_rows_are_left_out_where_the_card_says_so(tmp_path: Path) -> None:
    lenient = made.CARD.model_copy(update={"files": made.CARD.files.model_copy(update={"skip_bad": True})})
    assert len(read(write(tmp_path, [row(), row(" ")]), card=lenient)) == 1


def test_posts_inherit_the_fold_of_all_that_they_name(tmp_path: Path) -> None:
    rows = [row(f"{MADE_UP[0]} {at}", parent_id=name) for at, name in enumerate(TRAIN.index[:50])]
    rows.append(row(MADE_UP[1], shown=LISTED))
    posts = read(write(tmp_path, rows))
    named = posts[posts["parent_id"] != ""]
    assert (named["fold"].to_numpy() == TRAIN.loc[named["parent_id"], "fold"].to_numpy()).all()
    (other,) = posts[posts["parent_id"] == ""].to_dict("records")
    assert other["fold"] == 0 and json.loads(other["shown"]) == ["deu_0000", "deu_0005"]
    assert fold_leaks(pd.concat([POSTS, posts])) == ""


def test_a_post_without_a_parent_follows_the_one_that_it_is_like(tmp_path: Path) -> None:
    real = POSTS.assign(text=[f"{word * 3} {word} {at}" for at, word in enumerate(unlike_words(len(POSTS)))])
    copies = [f"{text} ja" for text in real["text"][:20]]
    path = write(tmp_path, [row(text) for text in copies])
    posts = posts_from_file(real, "deu", made.CARD, settings(path), likely_parents, lambda _: None)
    places = [copies.index(text) for text in posts["text"]]
    assert posts["fold"].tolist() == real["fold"].iloc[places].tolist()
    assert [json.loads(names) for names in posts["shown"]] == [[name] for name in real["id"].iloc[places]]
    assert set(posts["parent_id"]) == {""} and fold_leaks(pd.concat([real, posts])) == ""


def test_posts_of_dev_that_are_in_folds_are_followed_but_are_no_parents(tmp_path: Path) -> None:
    both = POSTS.assign(fold=POSTS["fold"].mask(POSTS["split"] == "dev", 3))
    path = write(tmp_path, [row()])
    place = int(np.flatnonzero(both[both["fold"] >= 0].sort_values(["id", "split"])["split"] == "dev")[0])
    posts = posts_from_file(both, "deu", made.CARD, settings(path), lambda *_: np.array([place]), lambda _: None)
    assert posts["fold"].tolist() == [3] and posts["shown"].tolist() == ["[]"]
    assert fold_leaks(pd.concat([both, posts])) == ""


@pytest.mark.parametrize("count", [1, 4, 5, 23])
def test_posts_that_are_like_none_are_dealt_evenly_by_label(tmp_path: Path, count: int) -> None:
    posts = read(write(tmp_path, [row(f"neu {at}", at % 3 == 0) for at in range(count)]))
    for found in (posts, posts[posts["label"] == 0], posts[posts["label"] == 1]):
        sizes = [int((found["fold"] == fold).sum()) for fold in range(5)]
        assert max(sizes) - min(sizes) <= 1
    assert fold_leaks(pd.concat([POSTS, posts])) == ""


@settings_of_tests(max_examples=25)
@given(st.randoms(use_true_random=False))
def test_rows_in_any_order_and_in_any_files_give_the_same_table(tmp_path_factory: Any, chance: random.Random) -> None:
    folder = tmp_path_factory.mktemp("order")
    rows = [row(f"neu {at % 9}", at % 2, id="" if at % 4 else f"own_{at}", parent_id="") for at in range(24)]
    rows += [row("neu 1", 0, id="", parent_id="deu_0007"), row("neu 1", 1, id="", parent_id="")]
    first = read(write(folder / "one", rows))
    assert first["id"].is_unique and len(first) == len(rows)
    chance.shuffle(rows)
    cut = chance.randint(1, len(rows) - 1)
    write(folder / "two", rows[:cut], "deu_1.csv")
    write(folder / "two", rows[cut:], "deu_2.csv")
    pd.testing.assert_frame_equal(read(folder / "two"), first)


def test_posts_of_a_file_go_through_the_same_stages_as_others(tmp_path: Path) -> None:
    words = unlike_words(len(POSTS) + 3)
    real = POSTS.assign(text=[" ".join(words[at : at + 3]) + f" {words[at]}" for at in range(len(POSTS))])
    copies = {split: f"{real.loc[real['split'] == split, 'text'].iloc[1]}!" for split in ("train", "dev", "test")}
    told = "Polarisiert: der Hafen schläft heute wieder"
    texts = [*copies.values(), told, *(f"{text} {text}" for text in MADE_UP)]
    path = write(tmp_path, [row(text) for text in texts])
    posts = posts_from_file(real, "deu", made.CARD, settings(path), likely_parents, lambda _: None)
    found = curate(real, posts, "deu", made.CARD, CurationSettings(), NgramEmbedder())
    stages = found[found["source"] != REAL].set_index("text")["stage"]
    assert [stages[text] for text in texts[:4]] == ["duplicate"] * 3 + ["leakage"]
    reasons = found[found["source"] != REAL].set_index("text")["reason"]
    assert all(reasons[text].endswith(f"a real post of {split}") for split, text in copies.items())
    assert {line["source"] for line in funnel(found)} == {"file"} and funnel(found)[0]["made"] == len(texts)
    assert set(for_backbones(found)["source"]) <= {REAL, "file"} and fold_leaks(found) == ""


@given(st.text(st.sampled_from("'=+-@\t\rab \uff1d"), max_size=8))
def test_no_cell_is_a_formula_and_the_text_comes_back(text: str) -> None:
    cell = without_formula(text)
    assert original_text(cell) == text and not cell.startswith(tuple("=+-@\t\r\uff1d"))
    assert cell in (text, f"'{text}")


# texts as curation leaves them: without blanks around them and control characters other than tabs and line breaks
LETTERS = st.sampled_from("ab,;|\t\n\r\"'=+-@\\{}[]# \u2028\ufeff\u0915\u93e5\U0001f600")
TEXTS = st.text(LETTERS, min_size=1, max_size=25).map(lambda text: f"{text.strip()}x")


@settings_of_tests(max_examples=50)
@given(st.lists(TEXTS, min_size=1, max_size=12), st.booleans())
def test_what_is_exported_is_read_again_as_it_was(tmp_path_factory: Any, texts: list[str], lines: bool) -> None:
    folder = tmp_path_factory.mktemp("round")
    frame = pd.DataFrame({"text": texts, "label": [at % 2 for at in range(len(texts))]})
    frame["id"] = [f"-deu_syn_{at:05}_0" for at in range(len(texts))]  # as ids of videos begin
    frame["fold"], frame["split"], frame["source"], frame["request"] = 1, "train", "rewrite", "r"
    frame["parent_id"], frame["shown"] = "deu_0001", '["deu_0001", "deu_0006"]'
    frame.loc[frame["label"] == 1, ["source", "parent_id"]] = ["contrast", "deu_pair_00001_0"]
    table = pd.concat([POSTS, frame.assign(asked_type="political")]).assign(keep=True, stage="", reason="")
    table = table.assign(judge_probability=0.85, backbone_label=pd.array([pd.NA] * len(table), dtype="Int8"))
    found = exported(table, "deu", made.CARD)
    path = folder / f"all.{'jsonl' if lines else 'csv'}"
    path.write_bytes(json_lines(found) if lines else spreadsheet_csv(found, made.CARD))
    again = read(path)
    assert again["id"].tolist() == frame["id"].tolist() and again["text"].tolist() == frame["text"].tolist()
    assert again["label"].tolist() == frame["label"].tolist() and set(again["fold"]) == {1}
    if not lines:
        cells = pd.read_csv(path, dtype=str, keep_default_na=False)
        assert not cells["text"].str.startswith(tuple("=+-@")).any() and not cells["id"].str.startswith("-").any()


def test_other_files_keep_their_apostrophes(tmp_path: Path) -> None:
    quoted = "'@USER ist weg', sagt sie"
    assert read(write(tmp_path, [row(quoted)]))["text"].tolist() == [quoted]
    kept = [row(quoted, source="x", kept="true", reason="")]
    assert read(write(tmp_path, kept, "deu.jsonl"))["text"].tolist() == [quoted]
    assert read(write(tmp_path, kept))["text"].tolist() == [quoted[1:]]  # written for spreadsheets


@pytest.mark.slow
def test_a_run_trains_on_the_posts_of_a_file_and_notices_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site.make(tmp_path)
    monkeypatch.setenv("POLAR_DATA_DIR", str(site.release))
    own = pd.read_csv(site.release / "train" / "deu.csv")
    pairs = zip(own["text"][:30], own["text"][50:80], own["polarization"], own["id"], strict=False)
    rows = [row(f"{one} {other}", label, language="deu", parent_id=name) for one, other, label, name in pairs]
    rows.append(row(pd.read_csv(site.release / "test" / "deu.csv")["text"][0], 1, language="deu"))
    rows.append(row("un post", 1, language="ita", parent_id="ita_1"))  # of a language that the profile does not have
    path = write(tmp_path / "given", rows, "mine.csv")
    changed = "decision:", "synthesis: {source: file, path: given/mine.csv}\ncuration: {gate: false}\ndecision:"
    site.write_profile("own", changed, ("[deu, eng]", "[deu]"))
    site.run()
    tables = site.results() / "tables"
    curated = pd.read_parquet(tables / "deduped_posts" / "deu.parquet")
    posts = curated[curated["source"] == "file"]
    assert len(posts) == 31 and posts["keep"].sum() > 10
    assert Counter(posts["reason"])["the same text as a real post of test"] == 1
    trained = posts[posts["parent_id"] != ""]
    folds = curated[curated["source"] == REAL].set_index("id")["fold"]
    assert (trained["fold"].to_numpy() == folds[trained["parent_id"]].to_numpy()).all()
    provenance = json.loads((tables / "synthetic_posts" / "deu.provenance.json").read_text())
    assert provenance["sources"] == {"mine.csv": file_sha256(path)}
    assert "1 of 1 languages are current" in site.run().stdout

    written = site.polar("synth", "export", "--profile", "own.yaml", "--to", "given.csv")
    assert "31 synthetic posts of 1 languages" in written.stdout
    refused = site.polar("synth", "export", "--profile", "own.yaml", "--to", "given/mine.csv", check=False)
    assert refused.returncode == 2 and "which the profile reads: name another" in refused.stderr
    path.write_bytes((tmp_path / "given.csv").read_bytes())
    assert "synthetic_posts: file mine.csv has changed" in site.run().stdout
    again = pd.read_parquet(tables / "deduped_posts" / "deu.parquet")
    columns = ["id", "text", "label", "fold", "keep", "stage"]
    pd.testing.assert_frame_equal(again[columns], curated[columns])

    write(tmp_path / "given", [*rows, row("noch einer", 1, language="deu", parent_id="deu_x")], "mine.csv")
    failed = site.run(check=False)
    assert failed.returncode == 2 and "mine.csv: row 33 (line " in failed.stderr
    assert "column `parent_id` has 'deu_x', which is no post of deu: correct it, or empty it" in failed.stderr
    path.unlink()
    gone = site.run(check=False)
    assert gone.returncode == 2 and "synthesis.path " in gone.stderr and gone.stderr.count("does not exist") == 1


def unlike_words(count: int) -> list[str]:
    """Words without a sequence of letters in common."""
    chance = random.Random(0)
    return ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=12)) for _ in range(count)]
