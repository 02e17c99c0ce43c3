"""A fastText file takes the identifier's place; what is missing or is no such file is said in one sentence."""

import os
import sys
from pathlib import Path

import pytest

from polar_pipeline.corpus.language_model import _code, _predict, fasttext_identifier
from polar_pipeline.errors import InputError

MODEL = os.environ.get("POLAR_TEST_LANGUAGE_MODEL", "")  # a fastText language identifier such as lid.176.ftz


class Model:
    def __init__(self, label: str, probability: float) -> None:
        self.label, self.probability, self.asked = label, probability, ""

    def predict(self, text: str, k: int, threshold: float) -> tuple[tuple[str, ...], tuple[float, ...]]:
        assert k == 1 and threshold == 0.0
        self.asked = text
        return ((self.label,), (self.probability,)) if self.label else ((), ())


@pytest.mark.parametrize(
    ("label", "code"),
    [
        ("__label__ur", "ur"),
        ("__label__hau_Latn", "ha"),
        ("__label__pnb_Arab", "pa"),
        ("__label__npi_Deva", "ne"),
        ("__label__cmn_Hani", "zh"),
        ("__label__eng", "en"),
        ("__label__ceb", "ceb"),
        ("__label__positive", ""),
    ],
)
def test_labels_become_the_codes_that_the_filter_knows(label: str, code: str) -> None:
    assert _code(label) == code


def test_what_the_model_is_asked_and_says() -> None:
    model = Model("__label__ur", 1.00001)
    found = _predict(model, "a\nb\x00c")
    assert model.asked == "a b c" and found == ("ur", 1.0, True) and found.certain
    assert not _predict(Model("__label__ur", 0.5), "x").certain
    assert _predict(Model("", 0.0), "") == ("", 0.0, False)


def test_a_missing_package_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fasttext", None)
    with pytest.raises(InputError, match=r"pip install polar-pipeline\[fasttext\]"):
        fasttext_identifier(tmp_path / "a.bin")


def test_a_missing_or_other_file_is_said(tmp_path: Path) -> None:
    pytest.importorskip("fasttext")
    with pytest.raises(InputError, match="there is no file"):
        fasttext_identifier(tmp_path / "none.bin")
    for name, content in {
        "text.bin": b"hello",
        "empty.bin": b"",
        "half.bin": b"\xba\x16\x4f\x2f\x0c\x00\x00\x00",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="is no fastText model"):
            fasttext_identifier(tmp_path / name)


@pytest.mark.skipif(not MODEL, reason="POLAR_TEST_LANGUAGE_MODEL names no fastText language identifier")
def test_a_real_model_tells_languages() -> None:
    identify, confused = fasttext_identifier(Path(MODEL))
    assert confused == {}
    texts = {"de": "Das ist doch nicht zu glauben", "en": "This is hard to believe", "ru": "В это трудно поверить"}
    assert {code: identify(text).code for code, text in texts.items()} == {code: code for code in texts}
