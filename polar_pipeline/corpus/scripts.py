"""Which script a text is written in: the one that most of its letters belong to."""

import numpy as np
import regex

from polar_pipeline.task.languages import LANGUAGES

# those of the registry, and the others that social media posts are likely to show; all the rest count as one
SCRIPTS = tuple(
    dict.fromkeys(
        [
            *(script for language in LANGUAGES.values() for script in language.scripts),
            *("Cyrillic", "Greek", "Hebrew", "Armenian", "Georgian", "Hangul", "Hiragana", "Katakana", "Bopomofo"),
            *("Thai", "Lao", "Tibetan", "Tamil", "Kannada", "Malayalam", "Gujarati", "Gurmukhi", "Sinhala", "Thaana"),
        ]
    )
)
OTHER = "other"
UNSPACED = ("Han", "Khmer", "Myanmar", "Thai", "Lao")  # scripts that put no spaces between words


def dominant_scripts(texts: list[str]) -> list[str]:
    """The script of most letters of each text, "other" for one that is not in `SCRIPTS`, "" for a text without letters.

    Letters alone count: digits, emoji, punctuation and combining marks say nothing of the language that is written.
    """
    names = ("", *SCRIPTS, OTHER)
    table = _script_numbers("".join(texts))
    characters = np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4")
    rows = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    cells = rows * len(names) + table[characters]
    counts = np.bincount(cells, minlength=len(texts) * len(names)).reshape(len(texts), len(names))
    counts[:, 0] = 0
    return [names[number] for number in counts.argmax(axis=1)]


def _script_numbers(text: str) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """By code point: 0 for what is no letter of a script, else the number of its script. Only for characters of `text`."""
    alphabet = "".join(set(text))
    table = np.zeros(0x110000, dtype=np.int64)
    for letter in regex.findall(r"(?V1)[\p{L}--\p{Script=Common}--\p{Script=Inherited}]", alphabet):
        table[ord(letter)] = len(SCRIPTS) + 1
    for number, name in enumerate(SCRIPTS, start=1):
        for letter in regex.findall(rf"(?V1)[\p{{L}}&&\p{{Script={name}}}]", alphabet):
            table[ord(letter)] = number
    return table
