"""The registry of the 22 official languages of SemEval-2026 Task 9, and all others of ISO 639.

`scripts` are those that the released texts really use, first the main one: Unicode script names; a script stands here
when at least 2% of a language's letters or 20 of its training posts are written in it. `train_posts` is the size of the
official training split; it orders the partitions, because the heaviest language bounds a backfill. Of other languages,
name and script are those of the CLDR (package langcodes).
"""

import functools
import re
from dataclasses import dataclass
from typing import Literal

import regex

from polar_pipeline.errors import InputError


@dataclass(frozen=True)
class Language:
    """One language: its official code (ISO 639-3), names, and what its posts look like."""

    code: str
    name: str
    native_name: str
    iso639_1: str
    scripts: tuple[str, ...]
    family: str
    train_posts: int

    @property
    def family_key(self) -> str:
        """The family as a name of files: `indo-european-indo-aryan`."""
        return re.sub("[^a-z]+", "-", self.family.lower()).strip("-")


_REGISTRY = (
    Language("amh", "Amharic", "አማርኛ", "am", ("Ethiopic", "Latin"), "Afro-Asiatic (Semitic)", 3332),
    Language("arb", "Arabic", "العربية", "ar", ("Arabic",), "Afro-Asiatic (Semitic)", 3380),
    Language("ben", "Bengali", "বাংলা", "bn", ("Bengali",), "Indo-European (Indo-Aryan)", 3333),
    Language("deu", "German", "Deutsch", "de", ("Latin",), "Indo-European (Germanic)", 3180),
    Language("eng", "English", "English", "en", ("Latin",), "Indo-European (Germanic)", 3222),
    Language("fas", "Persian", "فارسی", "fa", ("Arabic",), "Indo-European (Iranian)", 3295),
    Language("hau", "Hausa", "Hausa", "ha", ("Latin",), "Afro-Asiatic (Chadic)", 3651),
    Language("hin", "Hindi", "हिन्दी", "hi", ("Devanagari", "Latin"), "Indo-European (Indo-Aryan)", 2744),
    Language("ita", "Italian", "italiano", "it", ("Latin",), "Indo-European (Romance)", 3334),
    Language("khm", "Khmer", "ខ្មែរ", "km", ("Khmer",), "Austroasiatic", 6640),
    Language("mya", "Burmese", "မြန်မာ", "my", ("Myanmar",), "Sino-Tibetan (Lolo-Burmese)", 2889),
    Language("nep", "Nepali", "नेपाली", "ne", ("Devanagari",), "Indo-European (Indo-Aryan)", 2005),
    Language("ori", "Odia", "ଓଡ଼ିଆ", "or", ("Oriya", "Latin"), "Indo-European (Indo-Aryan)", 2368),
    Language("pan", "Punjabi", "پنجابی", "pa", ("Arabic",), "Indo-European (Indo-Aryan)", 1700),
    Language("pol", "Polish", "polski", "pl", ("Latin",), "Indo-European (Slavic)", 2391),
    Language("rus", "Russian", "русский", "ru", ("Cyrillic",), "Indo-European (Slavic)", 3348),
    Language("spa", "Spanish", "español", "es", ("Latin",), "Indo-European (Romance)", 3305),
    Language("swa", "Swahili", "Kiswahili", "sw", ("Latin",), "Niger-Congo (Bantu)", 6991),
    Language("tel", "Telugu", "తెలుగు", "te", ("Telugu",), "Dravidian", 2366),
    Language("tur", "Turkish", "Türkçe", "tr", ("Latin",), "Turkic (Oghuz)", 2364),
    Language("urd", "Urdu", "اردو", "ur", ("Arabic", "Latin"), "Indo-European (Indo-Aryan)", 3563),
    Language("zho", "Chinese", "中文", "zh", ("Han",), "Sino-Tibetan (Sinitic)", 4280),
)

# Unicode's names of scripts by ISO 15924 code, as far as languages of the CLDR are usually written in them
_SCRIPTS = {
    **{code: (name,) for code, name in (
        ("Latn", "Latin"), ("Cyrl", "Cyrillic"), ("Arab", "Arabic"), ("Deva", "Devanagari"), ("Grek", "Greek"),
        ("Hebr", "Hebrew"), ("Armn", "Armenian"), ("Geor", "Georgian"), ("Ethi", "Ethiopic"), ("Beng", "Bengali"),
        ("Guru", "Gurmukhi"), ("Gujr", "Gujarati"), ("Orya", "Oriya"), ("Taml", "Tamil"), ("Telu", "Telugu"),
        ("Knda", "Kannada"), ("Mlym", "Malayalam"), ("Sinh", "Sinhala"), ("Thai", "Thai"), ("Laoo", "Lao"),
        ("Tibt", "Tibetan"), ("Mymr", "Myanmar"), ("Khmr", "Khmer"), ("Thaa", "Thaana"), ("Hans", "Han"),
        ("Hant", "Han"),
    )},
    "Jpan": ("Han", "Hiragana", "Katakana"),
    "Kore": ("Hangul", "Han"),
}  # fmt: skip

LANGUAGES: dict[str, Language] = {language.code: language for language in _REGISTRY}
_LOCALE = re.compile(r"[a-z]{2,3}[_-]\w+\.[\w-]+", re.IGNORECASE)  # such as de_DE.UTF-8
_ADDED: dict[str, Language] = {}  # by task cards


def add_language(added: Language) -> None:
    """Make a language of a task card known by its code and name, in place of what the standards say of that code.

    Raises ValueError for a code of the registry, a script that Unicode does not have, or a code that a card has given
    another meaning.
    """
    if added.code in LANGUAGES:
        raise ValueError(f"{added.code} is {LANGUAGES[added.code].name} here: give the language another code")
    for script in added.scripts:
        try:
            regex.compile(rf"\p{{Script={script}}}")
        except regex.error:
            raise ValueError(f"{script!r} is no script of Unicode: write a name such as Latin or Arabic") from None
    if _ADDED.setdefault(added.code, added) != added:
        raise ValueError(f"{added.code} has another meaning in another task card of this process")


def language(code: str) -> Language:
    """The language with this ISO 639-3 code. Raises InputError with the remedy if there is none."""
    found = LANGUAGES.get(code) or _ADDED.get(code) or _standard(code)
    if found is None:
        near = language_code(code)
        remedy = f"write {near!r}" if near else "use one of ISO 639-3, such as deu for German"
        raise InputError(f"language {code!r} is no language code of three letters: {remedy}.")
    return found


def language_code(value: str) -> str | None:
    """The ISO 639-3 code that a text means: a code such as `de`, `deu` or `de-AT`, or a name in English or its own.

    None if it means none.
    """
    text = value.strip()
    text = text.partition(".")[0] if _LOCALE.fullmatch(text) else text
    own = next((code for code, one in _ADDED.items() if text.casefold() in (code, one.name.casefold())), None)
    return own or _standard_code(text)


@functools.cache
def _standard_code(text: str) -> str | None:
    from langcodes import Language as Tag
    from langcodes import find
    from langcodes.tag_parser import LanguageTagError

    if text in LANGUAGES:
        return text
    try:
        tag = Tag.get(text)
    except LanguageTagError:
        tag = Tag.get("und")
    if not tag.is_valid() or tag.language in (None, "und"):  # a name; one of four letters looks like a code
        try:
            tag = find(text)
        except LookupError:
            return None
    if not tag.is_valid() or tag.language in (None, "und"):
        return None
    # the registry may have one language of a group that the short code names: ar is arb, not ara
    own = next((code for code, known in LANGUAGES.items() if known.iso639_1 == tag.language), None)
    return own or str(tag.to_alpha3())


@functools.cache
def _standard(code: str) -> Language | None:
    """A language outside the registry as the standards describe it, without a family."""
    from langcodes import Language as Tag

    if _standard_code(code) != code:
        return None
    tag = Tag.get(code)
    two = tag.language if tag.language and len(tag.language) == 2 else ""
    scripts = _SCRIPTS.get(str(tag.maximize().script), ())
    return Language(code, tag.display_name(), tag.autonym(), two, scripts, f"its own ({code})", 0)


def language_codes(chosen: Literal["all"] | tuple[str, ...], every: tuple[str, ...] = ()) -> list[str]:
    """The codes that a profile's `languages` stand for, by size of their training split, largest first.

    `every` are those of the task card; if it names none, the registry's.
    """
    codes = (every or tuple(LANGUAGES)) if chosen == "all" else chosen
    return sorted(codes, key=lambda code: (-language(code).train_posts, code))
