"""Files of one's own: whatever people have becomes the same posts table, or one sentence says what is truly wrong."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from polar_pipeline.corpus.posts import check_posts, read_posts
from polar_pipeline.errors import InputError
from polar_pipeline.report.evidence import read_test_labels
from polar_pipeline.settings.yaml_files import validated
from polar_pipeline.task.card import TaskCard


def card(**settings: Any) -> TaskCard:
    label = {"column": "label", "negative": "neutral", "positive": "hateful", "definition": "Hate."}
    plain = {"name": "own", "title": "Own", "label": label | settings.pop("label", {}), "languages": ["deu"]}
    return validated(plain | settings, TaskCard, "card")


def put(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode(encoding))
    return path


def rows(table: pd.DataFrame) -> list[tuple[str, str, int | None]]:
    """Split, text and label of every post."""
    labels = [None if pd.isna(label) else int(label) for label in table["label"]]
    return list(zip(table["split"], table["text"], labels, strict=True))


def refusal(data: Path, task: TaskCard, language: str = "deu") -> str:
    with pytest.raises(InputError) as caught:
        read_posts(data, language, task)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


PLAIN = [("train", "ein Text, mit Komma", 1), ("train", "noch einer; so", 0)]
FILES = {
    "plain": "id,text,label\n1,\"ein Text, mit Komma\",1\n2,noch einer; so,0\n",
    "semicolons": "id;text;label\n1;ein Text, mit Komma;1\n2;\"noch einer; so\";0\n",
    "tabs": "id\ttext\tlabel\n1\tein Text, mit Komma\t1\n2\tnoch einer; so\t0\n",
    "Excel's first line": "sep=;\r\nid;text;label\r\n1;ein Text, mit Komma;1\r\n2;\"noch einer; so\";0\r\n",
    "a title": "Kommentare 2024\n\nid;text;label\n1;ein Text, mit Komma;1\n2;\"noch einer; so\";0\n",
    "other capitals and spaces": " ID ; Text ;LABEL\n1;ein Text, mit Komma;1\n2;\"noch einer; so\";0\n",
    "an index": ",text,label\n0,\"ein Text, mit Komma\",1\n1,noch einer; so,0\n",
    "row names": "text,label\n1,\"ein Text, mit Komma\",1\n2,noch einer; so,0\n",
    "empty columns": "id,text,label,,,\n1,\"ein Text, mit Komma\",1,,,\n2,noch einer; so,0\n",
    "old line ends": "id;text;label\r1;ein Text, mit Komma;1\r2;\"noch einer; so\";0\r",
    "words": "text,label\n\"ein Text, mit Komma\",Hateful\nnoch einer; so, neutral \n",
    "booleans": "text,label\n\"ein Text, mit Komma\",TRUE\nnoch einer; so,False\n",
    "a header that comes twice": "text,label\n\"ein Text, mit Komma\",yes\ntext,label\nnoch einer; so,no\n",
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_one_file_as_people_have_it(name: str, tmp_path: Path) -> None:
    posts = read_posts(put(tmp_path / "posts.csv", FILES[name]), "deu", card())
    assert rows(posts) == PLAIN
    check_posts(posts, card())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_are_detected_and_said(encoding: str, tmp_path: Path) -> None:
    texts = ["Für die Bürger wäre das schön, natürlich.", "Die Größe der Straße überrascht."]
    said: list[str] = []
    path = put(tmp_path / "posts.csv", f'text;label\n"{texts[0]}";1\n{texts[1]};0\n', encoding)
    assert read_posts(path, "deu", card(), said.append)["text"].tolist() == texts
    assert any("(guessed)" in note for note in said) == (encoding == "cp1252")
    assert any("separated by semicolons" in note for note in said)


def test_json_lines_and_parquet(tmp_path: Path) -> None:
    table = [{"text": text, "label": label} for _, text, label in PLAIN]
    put(tmp_path / "posts.jsonl", "\n".join(map(json.dumps, table)))
    pd.DataFrame(table).to_parquet(tmp_path / "posts.parquet")
    found = [rows(read_posts(tmp_path / f"posts{suffix}", "deu", card())) for suffix in (".jsonl", ".parquet")]
    assert found == [PLAIN, PLAIN]


def test_columns_words_and_languages_as_the_card_says(tmp_path: Path) -> None:
    content = (
        "Sprache,Tweet,Klasse,Teil\nde,a b,ja,train\nEnglish,c d,ja,train\ndeu,e f,nein,Validation\nde-AT,g h,,test\n"
    )
    task = card(
        languages=["deu", "eng"],
        columns={"text": "tweet", "language": "sprache", "split": "teil"},
        label={"column": "klasse", "words": {"ja": 1, "nein": 0}},
    )
    path = put(tmp_path / "all.csv", content)
    assert rows(read_posts(path, "deu", task)) == [("train", "a b", 1), ("dev", "e f", 0), ("test", "g h", None)]
    assert rows(read_posts(path, "eng", task)) == [("train", "c d", 1)]


def test_yes_and_no_of_yaml_are_words(tmp_path: Path) -> None:
    path = put(tmp_path / "card.yaml", "words: {yes: 1, no: 0, 2: 1, off: 0}\n")
    from polar_pipeline.settings.yaml_files import read_mapping

    words = card(label=read_mapping(path, "card")).label.words
    assert set(words.values()) == {0, 1} and words["2"] == 1


def test_posts_without_a_label_are_predicted(tmp_path: Path) -> None:
    path = put(tmp_path / "posts.csv", "id,text,label\n1,a,1\n2,b,\n3,c,0\n")
    assert rows(read_posts(path, "deu", card())) == [("train", "a", 1), ("train", "c", 0), ("test", "b", None)]
    assert read_test_labels(path, "deu", card()) is None


def test_a_dev_without_labels_is_predicted_and_that_is_said(tmp_path: Path) -> None:
    put(tmp_path / "train.csv", "id,text,label\n1,a,1\n")
    put(tmp_path / "dev.csv", "id,text\n1,b\n")
    said: list[str] = []
    assert rows(read_posts(tmp_path, "deu", card(), said.append)) == [("train", "a", 1), ("test", "b", None)]
    assert said == [f"{tmp_path / 'dev.csv'}: no post of dev has a label, so they are predicted like those of test"]


def test_labels_of_test_are_for_the_report_alone(tmp_path: Path) -> None:
    path = put(tmp_path / "posts.csv", "text,label,split\na,1,train\nb,0,test\nb,1,test\n")
    task = card(columns={"split": "split"})
    posts = read_posts(path, "deu", task)
    assert rows(posts)[1:] == [("test", "b", None)] * 2
    labels = read_test_labels(path, "deu", task)
    assert labels is not None and list(labels) == ["label"] and labels["label"].tolist() == [0, 1]
    assert labels.index.tolist() == posts.query("split == 'test'")["id"].tolist()


def test_ids_are_made_of_texts_and_do_not_depend_on_the_order(tmp_path: Path) -> None:
    one = read_posts(put(tmp_path / "one.csv", "text,label\na,1\nb,0\na,1\n"), "deu", card())
    other = read_posts(put(tmp_path / "other.csv", "text,label\nb,0\na,1\na,1\n"), "deu", card())
    assert one["id"].is_unique and sorted(one["id"]) == sorted(other["id"])
    assert (
        dict(zip(one["text"], one["id"], strict=True))["b"] == dict(zip(other["text"], other["id"], strict=True))["b"]
    )


def test_rows_that_cannot_be_used_may_be_left_out(tmp_path: Path) -> None:
    path = put(tmp_path / "posts.csv", "text,label\na,1\n\u200b,0\nb,0\nc,1,2\n")
    assert "row 4 (line 5) has 3 fields where the header has 2" in refusal(path, card())
    said: list[str] = []
    posts = read_posts(path, "deu", card(files={"skip_bad": True}), said.append)
    assert rows(posts) == [("train", "a", 1), ("train", "b", 0)]
    assert [note.partition(": ")[2] for note in said] == [
        "1 rows are left out, the first is row 4 (line 5) has 3 fields where the header has 2",
        "1 rows without a text are left out",
    ]


REFUSED = {
    "an unknown label": ("text,label\na,1\nb,perhaps\n", {},
                         "row 2 (line 3): column `label` is 'perhaps', which should"),
    "no text": ("text,label\na,1\n\u200b\u2060,0\n", {},
                "row 2 (line 3): column `text` is '\\u200b\\u2060', which should be a text"),
    "no such column": ("tweet,label\na,1\n", {}, "has no column `text`: add it to the header, or name the right one as "
                       "columns.text of the task card; it has `tweet`, `label`."),
    "a wrong delimiter": ("text;label\na;1\n", {"files": {"delimiter": ","}}, "it is separated by semicolons and "
                          "`delimiter` of the task card says otherwise: correct it"),
    "no language": ("text,label\na,1\n", {"languages": ["deu", "eng"]}, "does not say which language its posts are in: "
                    "name the column that does as columns.language"),
    "an unknown language": ("text,label,l\na,1,qq\n", {"columns": {"language": "l"}},
                            "row 1 (line 2): column `l` is 'qq', which is no language: write a code such as deu"),
    "an unknown split": ("text,label,s\na,1,fold3\n", {"columns": {"split": "s"}},
                         "row 1 (line 2): column `s` is 'fold3', which should be train, dev or test"),
    "no labels": ("text,label\na,\nb,\n", {}, "holds no post of deu with a label to train on"),
    "no label column": ("text,class\na,1\n", {}, "name the column of the labels as label.column of the task card"),
    "twice the same id": ("id,text,label\n1,a,1\n1,b,0\n", {}, "row 2 (line 3): column `id` is '1', which an earlier"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_truly_wrong_is_said(name: str, tmp_path: Path) -> None:
    content, settings, sentence = REFUSED[name]
    assert sentence in refusal(put(tmp_path / "posts.csv", content), card(**settings))
