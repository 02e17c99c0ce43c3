"""Where posts lie: every way to lay out files is found, and what their names say counts."""

from pathlib import Path

import pytest

from polar_pipeline.corpus.sources import find_sources, sources_of, sources_sha256, split_of
from polar_pipeline.errors import InputError
from polar_pipeline.storage.fingerprint import file_sha256

TASK = ("deu", "eng", "mya")


def lay(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"id,text\n1,{name}\n")
    return folder


LAYOUTS: dict[str, dict[str, tuple[str | None, str | None]]] = {
    "a file per split": {"train.csv": ("train", None), "validation.csv": ("dev", None), "test.csv": ("test", None)},
    "a folder per language": {"deu/train.jsonl": ("train", "deu"), "eng/dev.jsonl": ("dev", "eng")},
    "a file per language": {"deu.csv": (None, "deu"), "en.csv": (None, "eng")},
    "both in the name": {"deu_train.tsv": ("train", "deu"), "test-eng.tsv": ("test", "eng")},
    "nothing in the name": {"my_posts.csv": (None, "mya")},  # a code of the task
    "one of them packed": {"train.csv.gz": ("train", None)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_say_split_and_language(layout: str, tmp_path: Path) -> None:
    names = LAYOUTS[layout]
    lay(tmp_path, *names, "README.md", ".hidden.csv", "_old/train.csv")
    found = {
        source.path.relative_to(tmp_path).as_posix(): (source.split, source.language)
        for source in find_sources(tmp_path, TASK)
    }
    assert found == names


def test_words_that_are_codes_of_other_languages_say_nothing(tmp_path: Path) -> None:
    (source,) = find_sources(lay(tmp_path, "my_posts_to_it.csv"), ("deu", "eng"))
    assert (source.split, source.language) == (None, None)


def test_files_without_a_word_in_their_names_lie_beside_for_another_reason(tmp_path: Path) -> None:
    assert [source.path.name for source in find_sources(lay(tmp_path, "train.csv", "notes.csv"), TASK)] == ["train.csv"]


def test_one_file(tmp_path: Path) -> None:
    (source,) = find_sources(lay(tmp_path, "posts.csv") / "posts.csv", TASK)
    assert source.files == (tmp_path / "posts.csv",) and source.split is None


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none does not exist: give a file of posts"):
        find_sources(tmp_path / "none", TASK)
    with pytest.raises(InputError, match=r"holds no file of posts \(\.csv"):
        find_sources(tmp_path, TASK)


def test_a_folder_per_split_needs_the_language_in_each(tmp_path: Path) -> None:
    lay(tmp_path, "train/deu.csv", "train/eng.csv", "test/deu.csv")
    assert [source.split for source in sources_of(tmp_path, "deu", TASK)] == ["train", "test"]
    with pytest.raises(InputError, match=r"test/eng\.csv does not exist: run `polar data fetch`"):
        sources_of(tmp_path, "eng", TASK)


def test_the_hashes_of_a_languages_files(tmp_path: Path) -> None:
    lay(tmp_path, "train/deu.csv", "test/deu.csv", "train/eng.csv")
    expected = {name: file_sha256(tmp_path / name) for name in ("train/deu.csv", "test/deu.csv")}
    assert sources_sha256(tmp_path, "deu", TASK) == expected
    assert sources_sha256(tmp_path, "eng", TASK) == {"train/eng.csv": file_sha256(tmp_path / "train/eng.csv")}
    (tmp_path / "test" / "deu.csv").write_text("id,text,label\n1,a,1\n")
    assert sources_sha256(tmp_path, "deu", TASK) != expected
    assert sources_sha256(tmp_path, "fra", TASK) == {}


@pytest.mark.parametrize(
    ("word", "split"), [("Train", "train"), ("validation", "dev"), (" TEST ", "test"), ("all", None)]
)
def test_words_for_splits(word: str, split: str | None) -> None:
    assert split_of(word) == split
