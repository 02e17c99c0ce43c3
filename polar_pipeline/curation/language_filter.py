"""Is a text in the language that it should be in? Decided by its script, and by the sum of three kinds of evidence.

Function words of other languages of the script (`language_filter.yaml`), letter sequences that the real posts do not
have, and a language identifier (CLD3, 107 languages, or one of the user's own). The limit is learned from the
language's own real posts, each judged by all the others, so that few of them pass it. Other languages that many real
posts are written in are accepted, but only to the share that they have there: every seventh post of the Hausa file is
English. Where there is far more of one, the generator fell back to it, and none of it passes.
"""

import functools
import math
from collections import Counter

import numpy as np
import regex

from polar_pipeline.corpus.identification import CLD3, Identification, Identifier
from polar_pipeline.corpus.text import dominant_scripts
from polar_pipeline.curation.label_leakage import word_lists
from polar_pipeline.task.languages import Language

_COMMON = 0.02  # share of real posts identified as a language from which that language is accepted
_OWN_NAME = 0.5  # share of real posts identified as a language from which the identifier means this one by it
_SCRIPT = 0.005  # share of real posts in a script from which that script is accepted
_FLAGGED = 1 / 90  # share of real posts above the limit
_LEAST_LIMIT = 2.0  # evidence below it says nothing
_WORDS_ALONE = -0.5  # evidence of words from which a post, real or synthetic, counts as another language's
_LEANING = -1.5  # the same where so many posts count as that language that the generator fell back to it
_FALLEN_BACK = 2.0  # times the real share, and three standard errors more, from which it did
_FEWEST = 5  # posts of another language that prove it
_LETTERS_WEIGHT, _IDENTIFIER_WEIGHT = 1.5, 2.0  # beside that of words; chosen on posts of train, reported on others

_WORD = regex.compile(r"[\p{L}\p{M}\u200c']+")
# letters that keyboards of one script mix up
_SAME_LETTERS = str.maketrans(
    "\u064a\u0649\u0643\u06c1\u06c3\u0629\u0623\u0625\u0622\u2019",
    "\u06cc\u06cc\u06a9\u0647\u0647\u0647\u0627\u0627\u0627'",
)
_FUNCTION_SHARE = 0.4  # share of a text that its language's function words make up
_FREQUENT = 150  # most frequent words of the real posts that speak for the language, beside its function words
_BY_CHANCE = 2e-4  # how often another language would use one of those
_MAX_WORD = 3.0  # evidence of one word, in nats, so that a repeated name proves nothing
_MIN_WORDS = -9.0  # evidence for the language from which more of it does not outweigh other evidence

_NGRAM = 4  # letters, across words
_PRIOR = 10  # sequences' worth of doubt: a short text proves little
_ENOUGH_POSTS = 1000  # real posts from which letter evidence counts in full


class WordEvidence:
    """Compares how often the language's real posts use a text's words with how often another language would."""

    def __init__(self, language: Language, real: list[str], scripts: frozenset[str], accepted: frozenset[str]) -> None:
        """`accepted` are codes of languages that are not looked for."""
        self._counts = Counter(word for text in real for word in split_words(text))
        self._total = self._counts.total()
        known = {code: found for script in sorted(scripts) for code, found in function_words().get(script, {}).items()}
        frequent = (word for word, _ in self._counts.most_common(_FREQUENT))
        self._own = known.get(language.iso639_1, frozenset()) | frozenset(frequent)
        self._others = {code: found for code, found in known.items() if code not in {language.iso639_1, *accepted}}

    @property
    def codes(self) -> frozenset[str]:
        """The languages that a text may be taken for."""
        return frozenset(self._others)

    def __call__(self, text: str, *, counted: bool = False) -> tuple[float, str]:
        """Evidence for the most likely other language, above 0 if its words are more likely, and its code.

        `counted`: the text is one of the real posts, whose own words are left out.
        """
        found = split_words(text)
        if not found or not self._others:
            return 0.0, ""
        mine, total = (Counter(found), self._total - len(found)) if counted else (Counter[str](), self._total)
        logs = {word: math.log((self._counts[word] - mine[word] + 0.5) / (total + 1)) for word in set(found)}
        own = {word: min(_MAX_WORD, max(0.0, logs[word] - math.log(_BY_CHANCE))) for word in logs if word in self._own}
        base = -sum(own.get(word, 0.0) for word in found)
        best, best_code = _MIN_WORDS, ""
        for code, theirs in self._others.items():
            usual = math.log(_FUNCTION_SHARE / len(theirs))
            hits = [word for word in found if word in theirs]
            change = (max(-_MAX_WORD, min(_MAX_WORD, usual - logs[word])) + own.get(word, 0.0) for word in hits)
            if (score := base + sum(change)) > best:
                best, best_code = score, code
        return best / math.sqrt(len(found) + 4), best_code


class LetterEvidence:
    """Compares the share of a text's letter sequences that no real post has with that of a real post."""

    def __init__(self, real: list[str]) -> None:
        self._posts = Counter(part for text in real for part in _ngrams(text))
        self._weight = min(1.0, len(real) / _ENOUGH_POSTS)
        # what a real post shares with no other occurs in one post alone
        self._usual = sum(count == 1 for count in self._posts.values()) / max(self._posts.total(), 1)

    def __call__(self, text: str, *, counted: bool = False) -> float:
        """Above 0 for a text with more unknown sequences than real posts. `counted`: it is one of the real posts."""
        parts = _ngrams(text)
        unknown = sum(self._posts[part] <= counted for part in parts)
        return self._weight * (unknown - self._usual * len(parts)) / math.sqrt(len(parts) + _PRIOR)


class LanguageFilter:
    """What counts as the language, learned from its real posts.

    `names` are the identifier's codes for the language itself, `accepted` those and the other languages that many real
    posts are written in, `shares` the share of real posts in each of these others, `limit` that of the evidence.
    """

    def __init__(self, language: Language, real: list[str], identifier: Identifier = CLD3) -> None:
        self._identify, self._confused = identifier
        written = Counter(dominant_scripts(real))
        found = {script for script, count in written.items() if count >= _SCRIPT * len(real)}
        self.scripts = frozenset(found) | {language.scripts[0]}
        identified = [self._identify(text) for text in real]
        said = Counter(found.code for found in identified if found.certain)
        self.names, self.accepted = (
            frozenset(code for code, count in said.items() if count >= least * len(real)) | {language.iso639_1}
            for least in (_OWN_NAME, _COMMON)
        )
        self._words = WordEvidence(language, real, self.scripts, self.accepted)
        self._all_words = WordEvidence(language, real, self.scripts, frozenset({language.iso639_1}))
        self._letters = LetterEvidence(real)
        taken = Counter(self._taken_for(text, found, True) for text, found in zip(real, identified, strict=True))
        # in a script that it does not know the identifier names languages at random, so words have to know them too
        confused = {code for code, called in self._confused.items() if called in self.names}
        counted = (self.accepted | confused) & self._all_words.codes
        self.shares = {code: taken[code] / len(real) for code in sorted(counted)}
        sums = [self._evidence(text, found, True)[0] for text, found in zip(real, identified, strict=True)]
        self.limit = max(_LEAST_LIMIT, float(np.quantile(sums, 1 - _FLAGGED)))

    def foreign(self, text: str, script: str) -> str:
        """Why a text is not in the language, or "". `script` is its dominant one."""
        if script not in self.scripts:
            return f"script {script or 'without letters'}"
        evidence, other = self._evidence(text, self._identify(text))
        return f"language {other or 'unfamiliar'}" if evidence > self.limit else ""

    def surplus(self, texts: list[str]) -> dict[int, str]:
        """Positions of texts that are more of an accepted or similar language than real posts have, and why.

        The first ones in order pass: as many as the real posts' share makes on average, and one standard error more.
        Where there are far more, the generator fell back to that language, and none passes that leans to it.
        """
        identified = [self._identify(text) for text in texts]
        taken = [self._taken_for(text, found) for text, found in zip(texts, identified, strict=True)]
        objections: dict[int, str] = {}
        for code, share in self.shares.items():
            usual = share * len(texts)
            places = [place for place, other in enumerate(taken) if other == code]
            reason = f"language {code}, more of it than the {share:.1%} of real posts"
            if len(places) >= max(_FEWEST, _FALLEN_BACK * usual + 3 * math.sqrt(usual)):
                leaning = [self._leans_to(code, text, found) for text, found in zip(texts, identified, strict=True)]
                objections |= {place: reason for place in range(len(texts)) if leaning[place] or taken[place] == code}
            else:
                objections |= dict.fromkeys(places[int(usual + math.sqrt(usual)) :], reason)
        return objections

    def _taken_for(self, text: str, found: Identification, counted: bool = False) -> str:
        """The other language that words, or else the identifier, surely take a text for, or ""."""
        evidence, other = self._all_words(text, counted=counted)
        if evidence > _WORDS_ALONE:
            return other
        return found.code if found.certain and found.code not in self.names else ""

    def _leans_to(self, code: str, text: str, found: Identification) -> bool:
        """Whether words, or else the identifier, take a text for another language rather than for its own."""
        evidence, other = self._all_words(text)
        if evidence > _LEANING and other == code:
            return True
        return found.code == code and code not in self.names

    def _evidence(self, text: str, found: Identification, counted: bool = False) -> tuple[float, str]:
        """All evidence together, and the code of the language that it speaks for, "" for none in particular."""
        words, other = self._words(text, counted=counted)
        own = found.code in self.accepted
        identifier = -found.probability if own else found.probability
        if own and self._confused.get(other) == found.code:
            identifier = 0.0  # it would say the same of that language
        letters = self._letters(text, counted=counted)
        return words + _LETTERS_WEIGHT * letters + _IDENTIFIER_WEIGHT * identifier, other if own else found.code


def split_words(text: str) -> list[str]:
    """The words of a text, case folded, with look-alike letters made one."""
    found: list[str] = _WORD.findall(text.casefold().translate(_SAME_LETTERS))
    return found


@functools.cache
def function_words() -> dict[str, dict[str, frozenset[str]]]:
    """Function words by script and ISO 639-1 code."""
    return {
        script: {code: frozenset(split_words(line)) for code, line in lines.items()}
        for script, lines in word_lists("language_filter").items()
    }


def _ngrams(text: str) -> frozenset[str]:
    """The different letter sequences of a text, case folded, between single spaces."""
    bare = f" {' '.join(text.casefold().split())} "
    return frozenset(bare[at : at + _NGRAM] for at in range(len(bare) - _NGRAM + 1))
