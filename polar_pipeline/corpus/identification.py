"""Which language a text seems to be in, by CLD3 (107 languages)."""

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from polar_pipeline.task.languages import Language, language_code

_CERTAIN = 0.9  # probability from which an identification counts for shares
_POSTS = 1000  # that are enough to estimate a share
CONFUSED = {"pa": "ur"}  # what the identifier calls a language in a script it does not know: Punjabi in Arabic letters
_KNOWN = frozenset(
    """
    af am ar bg bn bs ca ceb co cs cy da de el en eo es et eu fa fi fil fr fy ga gd gl gu ha haw hi hmn hr ht hu hy id
    ig is it he ja jv ka kk km kn ko ku ky la lb lo lt lv mg mi mk ml mn mr ms mt my ne nl no ny pa pl ps pt ro ru sd
    si sk sl sm sn so sq sr st su sv sw ta te tg th tr uk ur uz vi xh yi yo zh zu
    """.split()  # noqa: SIM905 - a list of a hundred codes is read more easily so
)
_MODERN = {"iw": "he", "in": "id", "ji": "yi"}  # for codes of old that CLD3 writes


class Identification(NamedTuple):
    """A language's ISO 639-1 code, without script, its probability, and whether the identifier trusts itself."""

    code: str
    probability: float
    reliable: bool

    @property
    def certain(self) -> bool:
        """Whether it counts for shares of posts."""
        return self.reliable and self.probability >= _CERTAIN


class Identifier(NamedTuple):
    """What says the language of a text, and what it calls the languages whose names it does not know."""

    identify: Callable[[str], Identification]
    confused: dict[str, str]


def identify(text: str) -> Identification:
    """What the identifier says of a text."""
    found = _identifier().FindLanguage(text.replace("\x00", " "))
    return Identification(found.language.split("-")[0], found.probability, found.is_reliable)


def language_shares(texts: list[str], seed: int) -> dict[str, float]:
    """The share of texts that are surely in each language, by ISO 639-3 code, largest first; of a sample of many."""
    if len(texts) > _POSTS:
        texts = [texts[row] for row in np.random.default_rng(seed).choice(len(texts), _POSTS, replace=False)]
    found = [identify(text) for text in texts]
    counts = Counter(code for one in found if one.certain and (code := language_code(_MODERN.get(one.code, one.code))))
    return {code: count / len(texts) for code, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}


def is_identified(language: Language) -> bool:
    """Whether the identifier knows a language in its main script, so that what it says of texts means something."""
    known = "zh" if language.code in ("zho", "cmn") else language.iso639_1
    return known in _KNOWN and not (known in CONFUSED and language.scripts[:1] == ("Arabic",))


CLD3 = Identifier(identify, CONFUSED)


@functools.cache
def _identifier() -> Any:
    import gcld3

    return gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)
