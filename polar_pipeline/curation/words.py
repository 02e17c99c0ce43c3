"""Do a text's words speak for its own language, or for another one of the same script?

Each word is weighed: how often would another language use it (the little words of `words.yaml` make up four in ten words of any
text), and how often do the real posts of this one? So "die" says nothing in an English file where many posts quote German, and
much in one where none does. What does not belong here: how much evidence is enough.
"""

import functools
import math
from collections import Counter
from importlib import resources

import regex
import yaml

from polar_pipeline.task.languages import Language

_WORD = regex.compile(r"[\p{L}\p{M}\u200c']+")
# letters that keyboards of one script mix up
_SAME = str.maketrans(
    "\u064a\u0649\u0643\u06c1\u06c3\u0629\u0623\u0625\u0622\u2019",
    "\u06cc\u06cc\u06a9\u0647\u0647\u0647\u0627\u0627\u0627'",
)
_MASS = 0.4  # share of a text that its language's little words make up
_OWN = 150  # most frequent words of the real posts that speak for the language, beside its list
_SELDOM = 2e-4  # how often another language would use one of those by chance
_MOST = 3.0  # what one word can say, in nats: a name repeated is no proof
_LEAST = -9.0  # three words that surely are the language's own; more of them do not outweigh what else is found


class Words:
    """How often the real posts of a language use which words, and the little words of its rivals, whose codes are not `accepted`."""

    def __init__(self, language: Language, real: list[str], scripts: frozenset[str], accepted: frozenset[str]) -> None:
        self._counts = Counter(word for text in real for word in words(text))
        self._total = self._counts.total()
        known = {code: found for script in sorted(scripts) for code, found in little_words().get(script, {}).items()}
        frequent = (word for word, _ in self._counts.most_common(_OWN))
        self._own = known.get(language.iso639_1, frozenset()) | frozenset(frequent)
        self._rivals = {code: found for code, found in known.items() if code not in {language.iso639_1, *accepted}}

    @property
    def codes(self) -> frozenset[str]:
        """The languages that a text may be taken for."""
        return frozenset(self._rivals)

    def evidence(self, text: str, *, counted: bool = False) -> tuple[float, str]:
        """How much the words speak for the likeliest rival rather than for the language, above 0 if they do, and its code.

        `counted`: the text is one of the real posts, and its own words are not counted for it.
        """
        found = words(text)
        if not found or not self._rivals:
            return 0.0, ""
        mine, total = (Counter(found), self._total - len(found)) if counted else (Counter[str](), self._total)
        logs = {word: math.log((self._counts[word] - mine[word] + 0.5) / (total + 1)) for word in set(found)}
        own = {word: min(_MOST, max(0.0, logs[word] - math.log(_SELDOM))) for word in logs if word in self._own}
        base = -sum(own.get(word, 0.0) for word in found)
        best, rival = _LEAST, ""
        for code, theirs in self._rivals.items():
            usual = math.log(_MASS / len(theirs))
            hits = [word for word in found if word in theirs]
            change = (max(-_MOST, min(_MOST, usual - logs[word])) + own.get(word, 0.0) for word in hits)
            if (score := base + sum(change)) > best:
                best, rival = score, code
        return best / math.sqrt(len(found) + 4), rival


def words(text: str) -> list[str]:
    """The words of a text, case folded, look-alike letters made one."""
    found: list[str] = _WORD.findall(text.casefold().translate(_SAME))
    return found


@functools.cache
def little_words() -> dict[str, dict[str, frozenset[str]]]:
    """By script and code."""
    text = (resources.files("polar_pipeline.curation") / "words.yaml").read_text(encoding="utf-8")
    read: dict[str, dict[str, str]] = yaml.safe_load(text)
    return {script: {code: frozenset(words(line)) for code, line in lines.items()} for script, lines in read.items()}
