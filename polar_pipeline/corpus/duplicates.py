"""When two posts are the same: equal once case, addresses, mentions, punctuation and spaces are taken away.

Folds keep such posts together and the audit counts them. What does not belong here: posts that are merely alike.
"""

import unicodedata

import numpy as np
import pandas as pd
import regex

from polar_pipeline.metrics.scores import Ints

# ASCII only: in scripts without spaces, `\S+` or `\w+` would take the text that follows an address or a mention with it
_ADDRESSES = regex.compile(r"\[url\]|https?://[!-~]+|www\.[!-~]+|@[a-z0-9_]+")
_NO_CONTENT = regex.compile(r"[\p{P}\p{Z}\p{Cc}\p{Cf}]+")


def normalise(text: str) -> str:
    """The key under which posts count as the same; empty when a post is nothing but addresses, mentions and punctuation."""
    return _strip(_ADDRESSES.sub(" ", _fold(text)))


def bare(text: str) -> str:
    """`text` without case, punctuation and spaces, but with its addresses: what a canary is looked for in."""
    return _strip(_fold(text))


def duplicate_groups(posts: pd.DataFrame) -> Ints:
    """The number of each row's group, from 0 in order of first appearance; rows with one key are one group.

    An empty key says nothing about a post (two posts that are only `@USER` are not the same), so it groups with nothing.
    """
    numbers: dict[str | int, int] = {}
    keys = (normalise(text) or row for row, text in enumerate(posts["text"]))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _strip(text: str) -> str:
    # NFKC again: case folding takes some letters apart, and a letter may meet its accent once what stood between is gone
    return unicodedata.normalize("NFKC", _NO_CONTENT.sub("", text))
