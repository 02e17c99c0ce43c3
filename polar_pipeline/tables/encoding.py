"""Which encoding a text file is in: what it says itself, UTF-8 if that fits, else what its bytes look like."""

import codecs
from typing import BinaryIO, NamedTuple

from polar_pipeline.errors import InputError

UTF8 = "utf-8"

_PIECE = 1 << 20  # bytes that are looked at together
_MARKS = (
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MISTAKES = 0.1  # share of the characters beyond ASCII that are broken in a file that still passes for UTF-8


class Encoding(NamedTuple):
    """An encoding by its name in Python, and how sure it is."""

    name: str
    guessed: bool = False  # no mark in the file and no setting says it


def detect_encoding(file: BinaryIO, path: str) -> Encoding:
    """The encoding of all of `file`, which is read from its start and left there.

    A file with few broken characters is UTF-8 that was damaged: its rows are then named one by one. Raises InputError
    where the encoding can only be said by a person.
    """
    start = file.read(4)
    file.seek(0)
    for mark, name in _MARKS:
        if start.startswith(mark):
            return _checked(file, name, path, guessed=False)
    if len(start) >= 2 and 0 in start[:2]:  # every second byte of UTF-16 is 0 where a file begins with Latin letters
        return _checked(file, "utf-16-le" if start[1] == 0 else "utf-16-be", path, guessed=True)
    good, broken = _characters(file)
    if broken <= _MISTAKES * good:
        return Encoding(UTF8)
    from chardet import detect

    found = detect(_around_first_broken(file)).get("encoding")
    file.seek(0)
    if found is None:
        raise InputError(f"the encoding of {path} cannot be told: set `encoding`, such as cp1252 or utf-8.")
    return _checked(file, codecs.lookup(found).name, path, guessed=True)


def _checked(file: BinaryIO, name: str, path: str, guessed: bool) -> Encoding:
    """The encoding, once all of the file was read in it. Bytes that are not UTF-8 are left to the rows they are in."""
    if name != UTF8:
        decoder = codecs.getincrementaldecoder(name)()
        try:
            while piece := file.read(_PIECE):
                decoder.decode(piece)
            decoder.decode(b"", final=True)
        except UnicodeError:
            raise InputError(
                f"{path} looks like {name} and cannot be read as that: save it as UTF-8, or set `encoding`."
            ) from None
        file.seek(0)
    return Encoding(name, guessed)


def _characters(file: BinaryIO) -> tuple[int, int]:
    """How many characters beyond ASCII are good UTF-8 in the file, and how many bytes are not UTF-8."""
    decoder = codecs.getincrementaldecoder(UTF8)("surrogateescape")
    good = broken = 0
    while piece := file.read(_PIECE):
        if piece.isascii() and not decoder.getstate()[0]:
            continue
        beyond = [character for character in decoder.decode(piece) if character > "\x7f"]
        lone = sum("\udc80" <= character <= "\udcff" for character in beyond)
        good, broken = good + len(beyond) - lone, broken + lone
    file.seek(0)
    return good, broken


def _around_first_broken(file: BinaryIO) -> bytes:
    """A piece of the file with bytes that are not ASCII."""
    file.seek(0)
    piece = b""
    while following := file.read(_PIECE):
        piece = piece[-4096:] + following
        if not following.isascii():
            break
    return piece
