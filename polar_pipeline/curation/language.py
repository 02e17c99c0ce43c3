"""Is a text in the language it should be in? By script, by a language identifier, and by how familiar its letters are.

The identifier is CLD3 (compact language detector, 107 languages). How far it can be trusted for a language is measured on the
language's own real posts: what it takes many of them for is accepted, and its word alone counts only from a probability at which
it is wrong about fewer than one in a hundred. Below that it counts where the text is unfamiliar too: where few of its character
4-grams are among those of the real posts.
"""

import functools
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from polar_pipeline.corpus.scripts import dominant_scripts
from polar_pipeline.task.languages import Language

_COMMON = 0.02  # share of real posts taken for a language from which that language is accepted
_SCRIPT = 0.005  # share of real posts in a script from which that script is accepted
_WRONG = 0.01  # share of real posts that may be flagged
_LIMITS = (0.9, 0.95, 0.99, 0.999)  # probabilities tried
_SUSPECTED = 0.5  # probability from which another language is worth a look at the letters
_UNFAMILIAR = 0.25  # share of real posts that are less familiar than what then counts as foreign
_STRANGE = 0.001  # share of real posts that are less familiar than what is foreign whatever the identifier says
_ENOUGH = 1000  # real posts from which unfamiliar alone means anything
_SIZE = 4  # of the n-grams


class Guess(NamedTuple):
    """A language's ISO 639-1 code, without script, its probability, and whether the identifier trusts itself."""

    code: str
    probability: float
    reliable: bool


class Accepted(NamedTuple):
    """What counts as the language: scripts, codes that the identifier may say, and from when another code is believed."""

    scripts: frozenset[str]
    codes: frozenset[str]
    limit: float
    grams: frozenset[str]  # of the real posts
    unfamiliar: float  # familiarity below which a suspicion is believed
    strange: float  # and below which none is needed


def accepted(language: Language, real: list[str]) -> Accepted:
    """Learn from real posts what to accept."""
    scripts = Counter(dominant_scripts(real))
    known = {script for script, count in scripts.items() if count >= _SCRIPT * len(real)} | {language.scripts[0]}
    guesses = [guess(text) for text in real]
    said = Counter(found.code for found in guesses if found.reliable and found.probability >= _LIMITS[0])
    codes = {code for code, count in said.items() if count >= _COMMON * len(real)} | {language.iso639_1}
    own = [found.probability for found in guesses if found.reliable and found.code not in codes]
    sums = [sum(probability >= limit for probability in own) for limit in _LIMITS]
    limits = [limit for limit, wrong in zip(_LIMITS, sums, strict=True) if wrong <= _WRONG * len(real)]
    halves = [real[::2], real[1::2]]
    grams = [frozenset().union(*map(_grams, half)) if half else frozenset() for half in halves]
    # each half by the other's n-grams, as a new text would be
    seen = [familiarity(text, other) for half, other in zip(halves, grams[::-1], strict=True) for text in half]
    low, lowest = (float(np.quantile(seen, share)) for share in (_UNFAMILIAR, _STRANGE))
    lowest = lowest if len(real) >= _ENOUGH else -1.0
    return Accepted(frozenset(known), frozenset(codes), min(limits, default=2.0), grams[0] | grams[1], low, lowest)


def foreign(text: str, script: str, known: Accepted) -> str:
    """Why a text is not in the language, or nothing. `script` is its dominant one."""
    if script not in known.scripts:
        return f"script {script or 'without letters'}"
    found, familiar = guess(text), familiarity(text, known.grams)
    if found.code not in known.codes:
        certain = found.reliable and found.probability >= known.limit
        if certain or (found.probability >= _SUSPECTED and familiar < known.unfamiliar):
            return f"language {found.code}"
    return "language unfamiliar" if familiar < known.strange else ""


def familiarity(text: str, grams: frozenset[str]) -> float:
    """Share of a text's character 4-grams that are among `grams`; 1 for a text without any."""
    mine = _grams(text)
    return len(mine & grams) / len(mine) if mine else 1.0


def _grams(text: str) -> frozenset[str]:
    bare = f" {' '.join(text.casefold().split())} "
    return frozenset(bare[at : at + _SIZE] for at in range(len(bare) - _SIZE + 1))


def guess(text: str) -> Guess:
    """What the identifier says of a text."""
    found = _identifier().FindLanguage(text.replace("\x00", " "))
    return Guess(found.language.split("-")[0], found.probability, found.is_reliable)


@functools.cache
def _identifier() -> Any:
    import gcld3

    return gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)
