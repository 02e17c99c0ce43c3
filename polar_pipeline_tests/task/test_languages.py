"""The registry is the task's: 22 official codes with standard names."""

import pytest
import regex

from polar_pipeline.errors import InputError
from polar_pipeline.task.languages import LANGUAGES, language, language_codes


def test_the_22_official_codes() -> None:
    official = "amh arb ben deu eng fas hau hin ita khm mya nep ori pan pol rus spa swa tel tur urd zho"
    assert list(LANGUAGES) == official.split()
    assert len({item.iso639_1 for item in LANGUAGES.values()}) == 22
    assert sum(item.train_posts for item in LANGUAGES.values()) == 73_681


@pytest.mark.parametrize("code", LANGUAGES)
def test_scripts_are_unicode_scripts_and_the_main_one_writes_the_native_name(code: str) -> None:
    item = language(code)
    assert all(regex.compile(rf"\p{{Script={script}}}") for script in item.scripts)
    assert regex.search(rf"\p{{Script={item.scripts[0]}}}", item.native_name)


def test_heaviest_first() -> None:
    assert language_codes(("deu", "swa", "eng")) == ["swa", "eng", "deu"]


def test_an_unknown_code_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'xyz' is not one of the task's: use one of amh, .* zho"):
        language("xyz")
