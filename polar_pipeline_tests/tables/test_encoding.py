"""Encodings: what a file says itself goes first, then UTF-8, then what its bytes look like; a guess is called one."""

from pathlib import Path

import pytest

from polar_pipeline.errors import InputError
from polar_pipeline.settings.files import FileFormat
from polar_pipeline.tables.table_file import read_table

TEXTS = {
    "cp1252": ["Für die Bürger wäre das schön.", "Die Größe der Straße überrascht natürlich.", "Öffentliche Äußerung"]
    * 4,
    "cp1250": ["Wszyscy Żydzi są źli? Nieprawda, mówię", "Łódź jest pięknym miastem, że aż żal", "Ćwiczę śpiewać"] * 4,
    "cp1251": ["Все люди равны перед законом", "Это было очень давно", "Мы против войны"] * 4,
    "cp1254": ["Türkiye'de yaşayan herkes eşittir", "Şimdi çok güzel bir gün", "Ağaçlar yeşil"] * 4,
    "cp1256": ["هذا الكلام غير صحيح", "كل الناس سواسية أمام القانون", "السلام عليكم ورحمة الله"] * 4,
    "gb18030": ["大家都应该互相尊重", "这个城市非常漂亮", "今天天气很好"] * 4,
    "utf-16": ["Für die Bürger", "大家都应该", "plain"],
    "utf-8-sig": ["Für die Bürger", "大家都应该", "plain"],
    "utf-8": ["Für die Bürger", "大家都应该", "plain"],
}


def written(folder: Path, texts: list[str], encoding: str) -> Path:
    path = folder / "posts.csv"
    rows = "".join(f'{number},"{text}"\n' for number, text in enumerate(texts))
    path.write_bytes(f"id,text\n{rows}".encode(encoding))
    return path


@pytest.mark.parametrize("encoding", TEXTS)
def test_texts_come_back_from_each(encoding: str, tmp_path: Path) -> None:
    rows = read_table(written(tmp_path, TEXTS[encoding], encoding))
    assert rows.frame["text"].tolist() == TEXTS[encoding]
    said = [note for note in rows.notes if "guessed" in note]
    assert len(said) == (not encoding.startswith("utf"))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_its_mark(encoding: str, tmp_path: Path) -> None:
    rows = read_table(written(tmp_path, TEXTS["utf-16"], encoding))
    assert rows.frame["text"].tolist() == TEXTS["utf-16"] and rows.notes == [f"encoding {encoding} (guessed)"]


def test_a_setting_goes_before_a_guess(tmp_path: Path) -> None:
    path = written(tmp_path, ["naïve"], "latin-1")
    rows = read_table(path, FileFormat(encoding="latin-1"))
    assert rows.frame["text"].tolist() == ["naïve"] and not rows.notes


def test_a_wrong_mark_is_named(tmp_path: Path) -> None:
    path = tmp_path / "posts.csv"
    path.write_bytes(b"\xff\xfei\x00d\x00,\x00t\x00\n\x00\x00\xd8\x00\x00")
    with pytest.raises(InputError, match=r"posts\.csv looks like utf-16 and cannot be read as that: save it as UTF-8"):
        read_table(path)


@pytest.mark.parametrize("name", ["base64", "klingon", "rot13"])
def test_what_is_no_encoding_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no encoding of text that Python knows"):
        FileFormat(encoding=name)


@pytest.mark.parametrize(("spelt", "character"), [("tab", "\t"), ("\\t", "\t"), (";", ";"), ("Semicolon", ";")])
def test_delimiters_may_be_spelt(spelt: str, character: str) -> None:
    assert FileFormat(delimiter=spelt).delimiter == character


@pytest.mark.parametrize("wrong", ["", ";;", '"', "\n"])
def test_what_is_no_delimiter_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="write one character"):
        FileFormat(delimiter=wrong)
