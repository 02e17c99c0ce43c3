"""The registry of the 22 official languages of SemEval-2026 Task 9.

`scripts` are those that the released texts really use, first the main one: Unicode script names; a script stands here
when at least 2% of a language's letters or 20 of its training posts are written in it. `train_posts` is the size of the
official training split; it orders the partitions, because the heaviest language bounds a backfill.
"""

import re
from dataclasses import dataclass
from typing import Literal

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

LANGUAGES: dict[str, Language] = {language.code: language for language in _REGISTRY}


def language(code: str) -> Language:
    """The language with this official code. Raises InputError that lists the codes when there is none."""
    if code not in LANGUAGES:
        raise InputError(f"language {code!r} is not one of the task's: use one of {', '.join(LANGUAGES)}.")
    return LANGUAGES[code]


def language_codes(chosen: Literal["all"] | tuple[str, ...]) -> list[str]:
    """The codes that a profile's `languages` stand for, by size of their training split, largest first."""
    codes = tuple(LANGUAGES) if chosen == "all" else chosen
    return sorted(codes, key=lambda code: (-language(code).train_posts, code))
