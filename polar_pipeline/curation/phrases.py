"""What models say and posts do not: phrases of self-description, meta-talk and refusal, per language."""

import functools
import unicodedata
from importlib import resources

import yaml

EVERYWHERE = "eng"  # models fall back to English in whatever language they are asked to write


def flat(text: str) -> str:
    """A text as phrases are looked for in it: NFKC, case folded, one kind of apostrophe and space."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'").replace("\u02bc", "'")
    return " ".join(folded.split())


@functools.cache
def phrases(language: str) -> tuple[str, ...]:
    """The phrases that are looked for in posts of a language, flat."""
    text = (resources.files("polar_pipeline.curation") / "phrases.yaml").read_text(encoding="utf-8")
    known: dict[str, list[str]] = yaml.safe_load(text)
    return tuple(dict.fromkeys(flat(phrase) for phrase in [*known[EVERYWHERE], *known.get(language, [])]))


def found_phrase(text: str, language: str) -> str:
    """The first phrase that a text holds, or nothing."""
    content = flat(text)
    return next((phrase for phrase in phrases(language) if phrase in content), "")
