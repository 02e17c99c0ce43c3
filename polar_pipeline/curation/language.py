"""Is a text in the language it should be in? By script, and by a language identifier where that agrees with the real posts.

The identifier is CLD3 (compact language detector, 107 languages). How far it can be trusted for a language is measured on the
language's own real posts: what it takes many of them for is accepted, and its word counts only from a probability at which it
is wrong about fewer than one in a hundred.
"""

import functools
from collections import Counter
from typing import Any, NamedTuple

from polar_pipeline.corpus.scripts import dominant_scripts
from polar_pipeline.task.languages import Language

_COMMON = 0.02  # share of real posts taken for a language from which that language is accepted
_SCRIPT = 0.005  # share of real posts in a script from which that script is accepted
_WRONG = 0.01  # share of real posts that may be flagged
_LIMITS = (0.9, 0.95, 0.99, 0.999)  # probabilities tried


class Guess(NamedTuple):
    """A language's ISO 639-1 code, without script, and its probability; "" when the identifier does not trust itself."""

    code: str
    probability: float


class Accepted(NamedTuple):
    """What counts as the language: scripts, codes that the identifier may say, and from when another code is believed."""

    scripts: frozenset[str]
    codes: frozenset[str]
    limit: float


def accepted(language: Language, real: list[str]) -> Accepted:
    """Learn from real posts what to accept."""
    scripts = Counter(dominant_scripts(real))
    known = {script for script, count in scripts.items() if count >= _SCRIPT * len(real)} | {language.scripts[0]}
    guesses = [guess(text) for text in real]
    said = Counter(found.code for found in guesses if found.probability >= _LIMITS[0])
    codes = {code for code, count in said.items() if count >= _COMMON * len(real)} | {language.iso639_1, ""}
    for limit in _LIMITS:
        wrong = sum(found.probability >= limit and found.code not in codes for found in guesses)
        if wrong <= _WRONG * len(real):
            return Accepted(frozenset(known), frozenset(codes), limit)
    return Accepted(frozenset(known), frozenset(codes), 2.0)


def foreign(text: str, script: str, known: Accepted) -> str:
    """Why a text is not in the language, or nothing. `script` is its dominant one."""
    if script not in known.scripts:
        return f"script {script or 'without letters'}"
    found = guess(text)
    if found.probability >= known.limit and found.code not in known.codes:
        return f"language {found.code}"
    return ""


def guess(text: str) -> Guess:
    """What the identifier says of a text."""
    found = _identifier().FindLanguage(text.replace("\x00", " "))
    return Guess(found.language.split("-")[0], found.probability) if found.is_reliable else Guess("", 0.0)


@functools.cache
def _identifier() -> Any:
    import gcld3

    return gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)
