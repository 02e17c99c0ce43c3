"""How files of posts are written, and which of their columns is what. Whatever is left out is detected."""

import codecs
import io
from typing import Literal

from pydantic import field_validator

from polar_pipeline.settings.yaml_files import Settings

QUOTES = ("doubled", "backslash", "none", "spaced", "single")
_SPELT = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " "}


class FileFormat(Settings):
    """How delimited files are written; others (JSON lines, Parquet, datasets folders) say it themselves."""

    delimiter: str | None = None
    """What separates fields: one character, or tab. null: it is detected."""
    encoding: str | None = None
    """A name that Python knows, such as utf-8, cp1252 or utf-16. null: it is detected."""
    skipped_lines: int | None = None
    """Lines before the header. null: they are detected."""
    quotes: Literal["doubled", "backslash", "none", "spaced", "single"] | None = None
    """How a quote inside a quoted field is written; none: quotes are part of the texts; spaced: doubled, and blanks
    before a field do not belong to it; single: fields stand in single quotes. null: it is detected.
    """

    skip_bad: bool = False
    """Whether rows that cannot be read or have no text are left out and counted. false: the first one is an error."""

    @property
    def quoting(self) -> int | None:
        """The number of the way to quote."""
        return None if self.quotes is None else QUOTES.index(self.quotes)

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        found = _SPELT.get(value.lower(), value) if value else value
        if found is not None and (len(found) != 1 or found in '"\r\n'):
            raise ValueError(f"write one character, such as ; or tab, not {value!r}")
        return found

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return value and text_encoding(value)


def text_encoding(name: str) -> str:
    """Python's name of an encoding of text. Raises ValueError for one that it does not know."""
    try:
        found = codecs.lookup(name)
        io.TextIOWrapper(io.BytesIO(), encoding=name)  # refuses what decodes no text, such as base64
    except LookupError:
        raise ValueError(f"{name!r} is no encoding of text that Python knows: write utf-8, cp1252 or utf-16") from None
    return found.name
