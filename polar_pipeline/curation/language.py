"""Is a text in the language it should be in? By script, and by three witnesses whose word is added up.

Words: little words of another language (`words.py`). Letters: sequences that the real posts do not have (`letters.py`). And a
language identifier, CLD3 (107 languages). How much of it is too much is measured on the language's own real posts, each judged by
all the others: few pass the limit, since some are in another language. What many real posts are taken for is no fault of a post:
every seventh post of the Hausa file is English. But of such a language there should not be more than the real posts have.
"""

import functools
import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from polar_pipeline.corpus.text import dominant_scripts
from polar_pipeline.curation.letters import Letters
from polar_pipeline.curation.words import Words
from polar_pipeline.task.languages import Language

_COMMON = 0.02  # share of real posts taken for a language from which that language is accepted
_CERTAIN = 0.9  # probability from which a post counts as taken for it
_SCRIPT = 0.005  # share of real posts in a script from which that script is accepted
_FLAGGED = 1 / 80  # share of real posts that may pass the limit
_LEAST = 2.0  # no limit is lower: below it the witnesses say nothing
_TAKEN = -0.5  # evidence of words alone from which a post counts as taken for another language: real posts count alike
_OWN_NAME = 0.5  # share of real posts taken for a language from which the identifier means this one by it
_UNHEARD = {
    "pa": "ur"
}  # what the identifier says of a language whose script it does not know: Punjabi in Arabic letters
_LETTERS, _IDENTIFIER = 1.5, 2.0  # weights beside that of words; chosen on posts of train, reported on others


class Guess(NamedTuple):
    """A language's ISO 639-1 code, without script, its probability, and whether the identifier trusts itself."""

    code: str
    probability: float
    reliable: bool


class Accepted(NamedTuple):
    """What counts as the language: scripts, codes that the identifier may say, the witnesses, and their limit.

    `names` are those codes that mean the language itself; `shares` how many real posts are taken for each of the others.
    """

    scripts: frozenset[str]
    codes: frozenset[str]
    words: Words
    letters: Letters
    limit: float
    names: frozenset[str]
    rivals: Words
    shares: dict[str, float]


def accepted(language: Language, real: list[str]) -> Accepted:
    """Learn from real posts what to accept."""
    written = Counter(dominant_scripts(real))
    scripts = frozenset(script for script, count in written.items() if count >= _SCRIPT * len(real))
    scripts |= {language.scripts[0]}
    guesses = [guess(text) for text in real]
    said = Counter(found.code for found in guesses if found.reliable and found.probability >= _CERTAIN)
    names, codes = (
        frozenset(code for code, count in said.items() if count >= least * len(real)) | {language.iso639_1}
        for least in (_OWN_NAME, _COMMON)
    )
    witnesses = Words(language, real, scripts, codes), Letters(real)
    rivals = Words(language, real, scripts, frozenset({language.iso639_1}))
    known = Accepted(scripts, codes, *witnesses, _LEAST, names, rivals, {})
    taken = Counter(_taken_for(text, found, known, counted=True) for text, found in zip(real, guesses, strict=True))
    # in a script that it does not know the identifier names languages at random; only those that words know are counted
    unheard = {code for code, said_instead in _UNHEARD.items() if said_instead in names}
    counted = (codes | unheard) & rivals.codes
    known.shares.update({code: taken[code] / len(real) for code in sorted(counted)})
    sums = [_evidence(text, found, known, counted=True)[0] for text, found in zip(real, guesses, strict=True)]
    return known._replace(limit=max(_LEAST, float(np.quantile(sums, 1 - _FLAGGED))))


def foreign(text: str, script: str, known: Accepted) -> str:
    """Why a text is not in the language, or nothing. `script` is its dominant one."""
    if script not in known.scripts:
        return f"script {script or 'without letters'}"
    evidence, other = _evidence(text, guess(text), known)
    return f"language {other or 'unfamiliar'}" if evidence > known.limit else ""


def surplus(texts: list[str], known: Accepted) -> dict[int, str]:
    """Places of the texts, in their order, that are more of a near or accepted language than real posts have, and why.

    So many may be what chance makes of the real posts' share, give or take its error.
    """
    taken = [_taken_for(text, guess(text), known) for text in texts]
    found: dict[int, str] = {}
    for code, share in known.shares.items():
        usual = share * len(texts)
        places = [place for place, other in enumerate(taken) if other == code]
        reason = f"language {code}, more of it than the {share:.1%} of real posts"
        found |= dict.fromkeys(places[int(usual + math.sqrt(usual)) :], reason)
    return found


def _taken_for(text: str, found: Guess, known: Accepted, *, counted: bool = False) -> str:
    """The other language that words or else the identifier surely take a text for, or nothing."""
    evidence, rival = known.rivals.evidence(text, counted=counted)
    if evidence > _TAKEN:
        return rival
    sure = found.reliable and found.probability >= _CERTAIN and found.code not in known.names
    return found.code if sure else ""


def _evidence(text: str, found: Guess, known: Accepted, *, counted: bool = False) -> tuple[float, str]:
    """All witnesses together, and the code of the language that they take the text for, "" where they name none."""
    words, rival = known.words.evidence(text, counted=counted)
    own = found.code in known.codes
    identifier = -found.probability if own else found.probability
    if own and _UNHEARD.get(rival) == found.code:
        identifier = 0.0  # it would say the same of that one
    letters = known.letters.evidence(text, counted=counted)
    return words + _LETTERS * letters + _IDENTIFIER * identifier, rival if own else found.code


def guess(text: str) -> Guess:
    """What the identifier says of a text."""
    found = _identifier().FindLanguage(text.replace("\x00", " "))
    return Guess(found.language.split("-")[0], found.probability, found.is_reliable)


@functools.cache
def _identifier() -> Any:
    import gcld3

    return gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)
