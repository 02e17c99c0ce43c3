"""What texts alone show: whether one is blank, the key of its duplicates, its script, and n-grams to compare it by."""

import unicodedata
from collections import Counter

import numpy as np
import pandas as pd
import regex

from polar_pipeline.metrics.scores import Floats, Ints
from polar_pipeline.task.languages import LANGUAGES

# ASCII only: in scripts without spaces, `\S+` or `\w+` would take the text that follows an address or a mention with it
_ADDRESSES = regex.compile(r"\[url\]|https?://[!-~]+|www\.[!-~]+|@[a-z0-9_]+")
CONTROL = regex.compile(r"(?V1)[\p{Cc}--[\t\n\r]]")  # line breaks and tabs are part of posts
_NO_CONTENT = regex.compile(r"[\p{P}\p{Z}\p{Cc}\p{Cf}]+")
# U+2800 is the braille pattern without dots
_INVISIBLE = regex.compile(r"[\p{Z}\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\u2800]*")

# scripts of the registry, and others that social media posts are likely to contain; all the rest count as `OTHER`
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
_DIMENSIONS = 1024  # of the vectors of n-grams
UNSPACED = ("Han", "Khmer", "Myanmar", "Thai", "Lao")  # scripts that put no spaces between words


def is_blank(text: str) -> bool:
    """Whether a text has no visible character: only spaces, line breaks, control and zero-width characters."""
    return _INVISIBLE.fullmatch(text) is not None


def fold_case(text: str) -> str:
    """`text` in Unicode's compatibility form (NFKC), case folded."""
    return unicodedata.normalize("NFKC", text).casefold()


def normalise(text: str) -> str:
    """The key under which posts count as duplicates: without case, addresses, mentions, punctuation and spaces.

    Empty for a post that has nothing else.
    """
    return _strip(_ADDRESSES.sub(" ", fold_case(text)))


def bare(text: str) -> str:
    """`text` without case, punctuation and spaces, but with its addresses: canaries are searched in this form."""
    return _strip(fold_case(text))


def duplicate_groups(posts: pd.DataFrame) -> Ints:
    """The number of each row's duplicate group, int64 (rows,), from 0 in order of first appearance; uses column `text`.

    Posts with an empty key are groups of their own: two posts that are only `@USER` are not duplicates.
    """
    numbers: dict[str | int, int] = {}
    keys = (normalise(text) or row for row, text in enumerate(posts["text"]))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def dominant_scripts(texts: list[str]) -> list[str]:
    """The script of most letters of each text; `OTHER` for one that is not in `SCRIPTS`, "" for a text without letters.

    Digits, emoji, punctuation and combining marks are not counted, because they do not show the language.
    """
    names, numbers = (*SCRIPTS, OTHER), _script_numbers("".join(texts))
    found = []
    for text in texts:
        counts = Counter(sorted(numbers[character] for character in text if character in numbers))
        found.append(names[counts.most_common(1)[0][0]] if counts else "")  # of equals, the first in `SCRIPTS`
    return found


def ngram_vectors(texts: list[str]) -> Floats:
    """Log counts of the character 3- to 5-grams of normalised texts as unit vectors, float32 (texts, 1024).

    They are hashed with random signs, so that dot products are those of the whole count vectors up to an error of
    1/sqrt(dimensions) (Weinberger et al. 2009). A text without content is a zero vector.
    """
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.preprocessing import normalize

    counter = HashingVectorizer(analyzer="char", ngram_range=(3, 5), n_features=_DIMENSIONS, norm=None)
    counts = counter.transform([normalise(text) for text in texts])
    counts.data = np.sign(counts.data) * np.log1p(np.abs(counts.data))
    vectors: Floats = normalize(counts).toarray().astype(np.float32)
    return vectors


def _strip(text: str) -> str:
    # NFKC again: case folding decomposes some letters, and a removed character may have separated letter and accent
    return unicodedata.normalize("NFKC", _NO_CONTENT.sub("", text))


def _script_numbers(text: str) -> dict[str, int]:
    """The number of each letter's script in `SCRIPTS`; `len(SCRIPTS)` for other scripts."""
    alphabet = "".join(set(text))
    letters = regex.findall(r"(?V1)[\p{L}--\p{Script=Common}--\p{Script=Inherited}]", alphabet)
    numbers = dict.fromkeys(letters, len(SCRIPTS))
    for number, name in enumerate(SCRIPTS):
        numbers |= dict.fromkeys(regex.findall(rf"(?V1)[\p{{L}}&&\p{{Script={name}}}]", alphabet), number)
    return numbers
