"""The registry is the task's: 22 official codes with standard names."""

import pytest
import regex
from pydantic import ValidationError

from polar_pipeline.errors import InputError
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import LANGUAGES, language, language_code, language_codes


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


@pytest.mark.parametrize(
    ("code", "remedy"), [("xyz", "use one of ISO 639-3"), ("nl", "write 'nld'"), ("German", "write 'deu'")]
)
def test_what_is_no_code_gets_a_remedy(code: str, remedy: str) -> None:
    with pytest.raises(InputError, match=rf"language '{code}' is no language code of three letters: {remedy}"):
        language(code)


@pytest.mark.parametrize(
    ("code", "name", "scripts"),
    [
        ("nld", "Dutch", ("Latin",)),
        ("jpn", "Japanese", ("Han", "Hiragana", "Katakana")),
        ("kat", "Georgian", ("Georgian",)),
    ],
)
def test_a_language_outside_the_registry_is_described_by_the_standards(
    code: str, name: str, scripts: tuple[str, ...]
) -> None:
    found = language(code)
    assert (found.code, found.name, found.scripts, found.train_posts) == (code, name, scripts, 0)
    assert regex.search(rf"\p{{Script={scripts[0]}}}", found.native_name)
    assert found.family_key != language("deu").family_key


@pytest.mark.parametrize(
    ("value", "code"),
    [("de", "deu"), ("deu", "deu"), ("DE", "deu"), (" de-AT ", "deu"), ("German", "deu"), ("Deutsch", "deu"),
     ("zh", "zho"), ("pt_BR", "por"), ("Swahili", "swa"), ("xx", None), ("", None), ("1", None), ("no language", None)],
)  # fmt: skip
def test_what_cells_of_a_language_column_mean(value: str, code: str | None) -> None:
    assert language_code(value) == code


def test_short_codes_and_names_mean_the_languages_of_the_registry() -> None:
    for code, known in LANGUAGES.items():
        assert language_code(known.iso639_1) == language_code(known.name) == code
    assert language_code("ara") == language_code("ar-EG") == language_code("العربية") == "arb"
    assert (language_code("Urdu"), language_code("Thai"), language_code("xyzw")) == ("urd", "tha", None)


def test_a_task_card_can_add_a_language() -> None:
    own = {"code": "qsx", "name": "Upper Saxon", "scripts": ["Latin"], "family": "Indo-European (Germanic)"}
    card = {"name": "t", "title": "T", "own_languages": [own], "languages": ["qsx", "nld"]}
    label = {"column": "label", "negative": "other", "positive": "hate", "definition": "Hate."}
    for _ in range(2):  # a process may read its card again
        assert TaskCard.model_validate({**card, "label": label}).codes == ("qsx", "nld")
    assert (language("qsx").name, language("qsx").scripts) == ("Upper Saxon", ("Latin",))
    assert language("qsx").family_key == "indo-european-germanic"
    assert language_code("upper saxon") == language_code("qsx") == "qsx"
    for wrong, said in (
        ({"code": "deu"}, "deu is German here"),
        ({"code": "qsy", "scripts": ["Latinish"]}, "'Latinish' is no script of Unicode"),
        ({"name": "Other"}, "another meaning"),
        ({"code": "q1"}, "pattern"),
    ):
        with pytest.raises(ValidationError, match=said):
            TaskCard.model_validate({**card, "label": label, "own_languages": [{**own, **wrong}]})
