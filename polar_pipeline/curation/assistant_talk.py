"""Is part of a text what an assistant says around a post, or instead of one: introductions, refusals, notes, offers?

Word lists (`assistant_talk.yaml`) say what words of each language mean: an apology, "cannot", "write", "post" and so
on. A logistic regression learns which meanings stand together in an assistant's sentences
(`assistant_talk_examples.yaml`, of all languages at once, since meanings have no language) and not in the language's
own real posts. The limit is one that few of these posts pass. So wordings are found that stand in no list, as long as
most of their words do.
"""

import functools
import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

from polar_pipeline.curation.label_leakage import ENGLISH, UNSPACED_LETTERS, word_lists
from polar_pipeline.metrics.scores import Floats, Ints

CERTAIN = "says"  # the meaning that is enough alone
_FLAGGED = 0.0035  # share of real posts above the limit
_FOLDS = 3  # of real posts, from which the limit is learned
_LEAST_LIMIT = 0.0  # log odds below which nothing is taken for an assistant's, however few the real posts
_REGULARISATION = 1.0  # scikit-learn's C
_WEIGHT = 0.1  # of all examples beside all real posts: few posts shall be flagged

_PART = 600  # characters at the start and at the end that are looked at, so that long texts take no longer
_TAIL = 70  # characters at the end that count as a sentence of their own where the last one is longer
_SENTENCES, _LONGEST = 3, 200  # at the start and at the end, and characters of each
_LENGTHS = (45, 90, 150)  # characters up to which a sentence counts as short, in steps
_WHOLE_WORD = 3  # letters up to which the last word of a listed phrase must be a whole one; longer ones may go on
_STOPS = r".!?:\u061f\u06d4\u0964\u104b\u1361\u1362\u1366\u17d4\u17d6\u3002\uff01\uff1a\uff1f"
_MARKS = "|".join([rf"[{_STOPS}]", rf"[{_STOPS}][\"')\]*\u201d]", rf"[{_STOPS}]\*\*"])
# a sentence ends at marks before a space, marks of scripts without spaces, dashes, line breaks, a bracket at the end
_END = regex.compile(
    rf"(?<={_MARKS})\s+|(?<=[\u17d4\u17d6\u3002\uff01\uff1a\uff1f])|(?<=\s[\u2013\u2014-])\s|\n+"
    r"|\s+(?=[(\[\u3010][^()\[\]]{1,200}[)\]\u3011]\W*\Z)"
)
_COLONS = ":\u1361\u1366\u17d6\uff1a-\u2013\u2014"
_DIGIT, _QUESTIONS = regex.compile(r"\p{N}"), "?\u061f\uff1f"
_HAN, _FEW_WORDS = regex.compile(r"\p{Script=Han}"), 4
_BRACKETS = "([*\u3010\uff08"
# accents, vowel signs and points that are often left out, and letters that are typed for each other
_LEFT_OUT = regex.compile(r"[\u0300-\u036f\u064b-\u0652\u0670\u093c\u09bc\u0a3c\u0b3c]")
_OTHER_LETTERS = str.maketrans(
    "\u064a\u0649\u0643\u06c1\u06c3\u0629\u0623\u0625\u0622\u0901\u0199\u0257\u0253\u0131\u0142",
    "\u06cc\u06cc\u06a9\u0647\u0647\u0647\u0627\u0627\u0627\u0902kdbil",
)
_NO_LETTER = regex.compile(r"[^\p{L}\p{M}\p{N}]+")
_UNSPACED = regex.compile(f"[{UNSPACED_LETTERS}]")

Flags = NDArray[np.bool_]


class Sentence(NamedTuple):
    """A part of a text, and how many parts stand before and after it."""

    text: str
    before: int
    after: int


class AssistantTalk:
    """Finds the part of a text that an assistant says, judged by the real posts of its language."""

    def __init__(self, language: str, real: list[str]) -> None:
        self._language = language
        posts = [_flags(split_sentences(text), language) for text in real]
        self._model = _fit(posts)
        highest = np.zeros(len(posts))
        for fold in range(_FOLDS):  # each judged by a model that did not see it
            others = [flags for place, flags in enumerate(posts) if place % _FOLDS != fold]
            model = _fit(others or posts)
            highest[fold::_FOLDS] = [_scores(model, flags).max() for flags in posts[fold::_FOLDS]]
        self._limit = max(_LEAST_LIMIT, float(np.quantile(highest, 1 - _FLAGGED)))

    def __call__(self, text: str) -> str:
        """The sentence that is most like an assistant's, or "" if none is."""
        sentences = split_sentences(text)
        flags = _flags(sentences, self._language)
        scores = _scores(self._model, flags)
        scores[flags[:, 0]] = np.inf
        best = int(scores.argmax())
        return sentences[best].text if scores[best] > self._limit else ""


def _fit(posts: list[Flags]) -> Any:
    """A logistic regression that tells the examples' sentences from those of real posts, each given by its flags."""
    from sklearn.linear_model import LogisticRegression

    examples, kinds = _examples()
    theirs, ours = _features(examples), _features(np.concatenate(posts))
    known = np.concatenate([np.ones(len(theirs)), np.zeros(len(ours))])
    # each kind counts as much as the others
    shares = np.bincount(kinds)[kinds] * len(set(kinds.tolist())) / len(kinds)
    weights = np.concatenate([_WEIGHT * len(ours) / len(theirs) / shares, np.ones(len(ours))])
    model = LogisticRegression(C=_REGULARISATION, solver="liblinear", random_state=0)
    return model.fit(np.concatenate([theirs, ours]), known, weights)


def _scores(model: Any, flags: Flags) -> Floats:
    scores: Floats = model.decision_function(_features(flags))
    return scores


def split_sentences(text: str) -> list[Sentence]:
    """The first and the last sentences or lines of a text, at least one; what stands before a colon or dash
    is one, and so is it with what follows.
    """
    if len(text) > 2 * _PART:
        text = f"{text[:_PART]}\n{text[-_PART:]}"
    parts = [part.strip()[:_LONGEST] for part in _END.split(text) if part and part.strip()] or [""]
    found = [Sentence(part, place, len(parts) - 1 - place) for place, part in enumerate(parts)]
    if len(parts[-1]) > _TAIL:  # a post without a stop, and what was written after it
        found.append(Sentence(parts[-1][-_TAIL:].partition(" ")[2] or parts[-1][-_TAIL:], len(parts), 0))
    for one, other in pairwise(found[: len(parts)]):  # "Note: this is made up" is one, too
        if one.text[-1:] in _COLONS and one.text:
            found.append(Sentence(f"{one.text} {other.text}"[:_LONGEST], one.before, other.after))
    return [one for one in found if one.before < _SENTENCES or one.after < _SENTENCES]


def _flags(sentences: list[Sentence], language: str) -> Flags:
    """What each sentence has: each meaning of the lists, and form and place, bool (sentences, flags)."""
    words = _meanings(language)
    rows = []
    for text, before, after in sentences:
        bare, length = _bare(text), len(text) + len(_HAN.findall(text))  # a Chinese character says about as much as two
        form = [text[-1:] in _COLONS and text != "", text[:1] in _BRACKETS and text != ""]
        form += [
            _DIGIT.search(text) is not None,
            bare.count(" ") <= _FEW_WORDS + 1 and length <= _LENGTHS[0],
            text[-1:] in _QUESTIONS and text != "",
        ]
        form += [length <= most for most in _LENGTHS]
        place = [before == 0, after == 0, before + after == 0, before < _SENTENCES]
        rows.append([any(word in bare for word in listed) for listed in words] + form + place)
    return np.array(rows, dtype=bool)


def _features(flags: Flags) -> Floats:
    """The flags and each two of them together, float64 (sentences, features)."""
    first, second = np.triu_indices(flags.shape[1], 1)
    return np.concatenate([flags, flags[:, first] & flags[:, second]], axis=1).astype(np.float64)


@functools.cache
def _examples() -> tuple[Flags, Ints]:
    """The flags of the example sentences of all languages, and the number of the kind of each."""
    rows, numbers = [], []
    order = ("meta", "refusal", "closing")
    for language, kinds in word_lists("assistant_talk_examples").items():
        for kind, phrases in kinds.items():
            for phrase in phrases:
                # an introduction stands before a post, a closing after it, a refusal alone
                before, after = int(kind == "closing"), int(kind == "meta")
                found = [Sentence(one.text, one.before + before, one.after + after) for one in split_sentences(phrase)]
                rows.append(_flags(found, language))
                numbers += [order.index(kind)] * len(found)
    return np.concatenate(rows), np.array(numbers)


@functools.cache
def _meanings(language: str) -> list[list[str]]:
    """The words of each meaning in a language and in English, as `_bare` writes them; `CERTAIN` comes first."""
    lists = word_lists("assistant_talk")
    here = [lists[code] for code in dict.fromkeys([ENGLISH, language]) if code in lists]
    kinds = sorted(lists[ENGLISH], key=lambda kind: kind != CERTAIN)
    return [sorted(set(_as_searched(word for listed in here for word in listed[kind]))) for kind in kinds]


def _as_searched(words: Iterable[str]) -> Iterable[str]:
    """Phrases as beginnings of words, as whole words where the last is short; anywhere in scripts without spaces."""
    for word in words:
        bare = _bare(word).strip()
        if _UNSPACED.match(bare):
            yield bare
        else:
            yield f" {bare} " if len(bare.split()[-1]) <= _WHOLE_WORD else f" {bare}"


def _bare(text: str) -> str:
    """Case folded, without accents, with look-alike letters made one and a space for all that is no letter."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return f" {_NO_LETTER.sub(' ', _LEFT_OUT.sub('', folded).translate(_OTHER_LETTERS))} "
