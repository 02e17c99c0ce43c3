"""Opening a file of posts: what is no table is named, what is compressed is unpacked, a pipe is copied."""

import gzip
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

from polar_pipeline.errors import InputError

GZIP = b"\x1f\x8b"
# what files begin with that people take for tables
_NO_TABLES = {
    b"PK\x03\x04": "is an Excel workbook or another zip archive: save the sheet as CSV (UTF-8), or unpack it",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook: save the sheet as CSV (UTF-8)",
    b"\x80\x04": "is a pickle, which may hold code and is never read: save the posts as Parquet, JSONL or CSV",
    b"\x80\x05": "is a pickle, which may hold code and is never read: save the posts as Parquet, JSONL or CSV",
    b"%PDF": "is a PDF: give the table as CSV",
    b"SQLite format 3": "is a database: export the posts as CSV",
    b"BZh": "is packed with bzip2: unpack it",
    b"\xfd7zXZ": "is packed with xz: unpack it",
    b"\x28\xb5\x2f\xfd": "is packed with zstandard: unpack it",
    b"\x89PNG": "is a picture: give a table of posts",
    b"\xff\xd8\xff": "is a picture: give a table of posts",
    b"<!DOCTYPE": "is a page of HTML or XML: give the posts as CSV or JSON lines",
    b"<!doctype": "is a page of HTML or XML: give the posts as CSV or JSON lines",
    b"<html": "is a page of HTML or XML: give the posts as CSV or JSON lines",
    b"<?xml": "is a page of HTML or XML: give the posts as CSV or JSON lines",
    b"__label__": "is in the format of fastText: write it as CSV with the columns label and text",
    b"@relation": "is in the format of Weka: write it as CSV",
    b"@RELATION": "is in the format of Weka: write it as CSV",
}


def kind_of(path: Path) -> str:
    """The suffix of a file in small letters, that before .gz where it is packed."""
    return (Path(path.stem) if path.suffix.lower() == ".gz" else path).suffix.lower()


def opened(path: Path) -> BinaryIO:
    """A file that can be read more than once, unpacked. Raises InputError when it cannot be read or is no table."""
    try:
        file: BinaryIO = path.open("rb")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: correct the path.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give a readable file.") from None
    if not file.seekable():
        file = _copied(file)
    start = file.read(16)
    file.seek(0)
    if start.startswith(GZIP):
        try:
            with file, gzip.open(file) as packed:
                return _copied(packed)  # type: ignore[arg-type]
        except (OSError, EOFError) as error:
            raise InputError(f"{path} cannot be unpacked ({error}): fetch it again.") from None
    for mark, fault in _NO_TABLES.items():
        if start.removeprefix(b"\xef\xbb\xbf").startswith(mark):
            file.close()
            raise InputError(f"{path} {fault}.")
    return file


def _copied(file: BinaryIO) -> BinaryIO:
    copy: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed by whoever reads it
    with file:
        shutil.copyfileobj(file, copy)
    copy.seek(0)
    return copy
