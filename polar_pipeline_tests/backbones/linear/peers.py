"""The same n-grams by scikit-learn's vectorizers, for tests and benchmarks."""

import regex
from sklearn.feature_extraction.text import CountVectorizer

from polar_pipeline.backbones.linear.features import NgramKind

_WORD = regex.compile(r"[\p{L}\p{N}\p{M}_\u200c\u200d]+|[^\s\p{L}\p{N}\p{M}_\u200c\u200d]")
_SPACE = regex.compile(r"[\s\x1c-\x1f]+")


def tokenize(text: str) -> list[str]:
    """Words and single symbols."""
    return [str(token) for token in _WORD.findall(text)]


def squeeze(text: str) -> str:
    """Every run of white space as one space."""
    return str(_SPACE.sub(" ", text))


def vectorizer(kind: NgramKind, min_df: int = 1) -> CountVectorizer:
    """A CountVectorizer that counts what `kind` says."""
    sizes = {"ngram_range": (kind.shortest, kind.longest), "lowercase": not kind.cased, "min_df": min_df}
    if kind.name == "words":
        return CountVectorizer(tokenizer=tokenize, token_pattern=None, **sizes)
    if kind.name == "char_wb":
        return CountVectorizer(analyzer="char_wb", **sizes)
    return CountVectorizer(analyzer="char", preprocessor=squeeze, **(sizes | {"lowercase": False}))
