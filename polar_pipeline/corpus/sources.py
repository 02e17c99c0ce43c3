"""Where the posts of a language lie: a file, a folder of files, or a folder that Hugging Face's datasets saved.

What a file's name and folder say of its rows (their split, their language) needs no column. What does not belong here:
what is in the files (posts.py).
"""

import re
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import NamedTuple

from polar_pipeline.corpus.release import SPLITS
from polar_pipeline.errors import InputError
from polar_pipeline.settings.files import FileFormat
from polar_pipeline.storage.fingerprint import file_sha256
from polar_pipeline.tables.opening import kind_of
from polar_pipeline.tables.records import dataset_splits
from polar_pipeline.tables.rows import Rows, TableFile, all_rows
from polar_pipeline.tables.table_file import TABLES, open_table
from polar_pipeline.task.languages import LANGUAGES, language_code

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "devel", "development", "val", "valid", "validation", "eval"), "dev"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_POSTS_AS_FILES = 20  # files of text alone in a folder, from which each is taken for a post
_BESIDE = ("readme", "licence", "license", "changelog", "citation", "notes")  # files that lie beside data
_CODE = re.compile(r"[a-z]{2,3}")


class Source(NamedTuple):
    """A table of posts; `split` and `language` are what its name says of all its rows, if anything."""

    path: Path
    split: str | None
    language: str | None
    files: tuple[Path, ...]  # what its rows depend on
    open: Callable[[FileFormat], TableFile]

    def read(self, form: FileFormat) -> Rows:
        """All rows. Raises InputError for what cannot be read."""
        with self.open(form) as file:
            return all_rows(file, form.skip_bad)


def split_of(word: str) -> str | None:
    """The split that a word means, such as dev for `validation`; None if it means none."""
    return _SPLITS.get(word.strip().lower())


def find_sources(data: Path, languages: Collection[str]) -> list[Source]:
    """All tables of posts in `data`, a file or a folder, whose names may name these languages.

    Raises InputError if there is none.
    """
    if data.is_file():  # that a file alone is called test.csv does not make its posts those of test
        return [_file(data, data.parent, languages)._replace(split=None)]
    if datasets := dataset_splits(data):
        found = []
        for name, table in datasets.items():
            folder = data / name if name else data
            own = tuple(sorted(file for file in folder.iterdir() if file.is_file()))
            found.append(Source(folder, split_of(name), None, own, partial(_as_it_is, table)))
        return found
    if not data.is_dir():
        raise InputError(f"{data} does not exist: give a file of posts, or a folder of such files.")
    files = [file for file in sorted(data.rglob("*")) if _is_table(file, data)]
    named = [source for file in files if (source := _file(file, data, languages)).split or source.language]
    if len(files) > _POSTS_AS_FILES and {kind_of(file) for file in files} == {".txt"}:
        raise InputError(
            f"{data} holds {len(files)} .txt files, which seem to be a post each: write one CSV of them, with the "
            f"columns text and label."
        )
    if not files:
        raise InputError(f"{data} holds no file of posts ({', '.join(TABLES)}): give another folder, or a file.")
    # where names say what files are, others lie beside them for another reason
    return named or [_file(file, data, languages) for file in files]


def sources_of(data: Path, language: str, languages: Collection[str]) -> list[Source]:
    """The tables that may hold posts of a language; `languages` are those of the task.

    Where there is a folder per split with a file per language, this one should be in each. Raises InputError if not.
    """
    folders = [data / split for split in SPLITS if (data / split).is_dir()]
    if not any(file.stem in languages for folder in folders for file in folder.iterdir()):
        return [source for source in find_sources(data, languages) if source.language in (None, language)]
    found = []
    for folder in folders:
        there = sorted(file for file in folder.glob(f"{language}.*") if _is_table(file, data))
        if not there:
            remedy = "run `polar data fetch`, or set POLAR_DATA_DIR to a folder with train/, dev/ and test/"
            raise InputError(f"{folder / language}.csv does not exist: {remedy}.")
        found.append(_file(there[0], data, [language])._replace(split=folder.name, language=language))
    return found


def sources_sha256(data: Path, language: str, languages: Collection[str]) -> dict[str, str]:
    """sha256 of the files that may hold posts of a language, by their path under `data`; without those that are gone.

    Files of test are hashed as they are, labels included; nothing in them is read.
    """
    root = data.parent if data.is_file() else data
    try:
        files = [file for source in sources_of(data, language, languages) for file in source.files]
    except InputError:
        files = [file for split in SPLITS if (file := data / split / f"{language}.csv").is_file()]
    return {file.relative_to(root).as_posix(): file_sha256(file) for file in files if file.is_file()}


def _language_named(word: str) -> str | None:
    """The code that a word of a file's name means: a code, or the English or own name of an official language."""
    if _CODE.fullmatch(word):
        return language_code(word)
    names = (name.casefold() for known in LANGUAGES.values() for name in (known.name, known.native_name))
    return language_code(word) if word.casefold() in names else None


def _as_it_is(table: TableFile, form: FileFormat) -> TableFile:  # noqa: ARG001 - it says itself how it is written
    return table


def _is_table(file: Path, root: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in file.relative_to(root).parts)
    return file.is_file() and kind_of(file) in TABLES and not hidden and file.stem.lower() not in _BESIDE


def _file(path: Path, root: Path, languages: Collection[str]) -> Source:
    """A file with what its name and the folders below `root` say, such as `train/deu.csv` or `deu_validation.jsonl`.

    Only `languages` count: `my` is a code, and more often a word.
    """
    parts = [*path.relative_to(root).parent.parts, path.name.partition(".")[0]]
    words = [word for part in parts for word in re.split(r"[\W\d_]+", part) if word]
    split = next((found for word in reversed(words) if (found := split_of(word))), None)
    codes = [word for word in words if not split_of(word)]
    language = next((found for word in reversed(codes) if (found := _language_named(word)) in languages), None)
    return Source(path, split, language, (path,), partial(open_table, path))
