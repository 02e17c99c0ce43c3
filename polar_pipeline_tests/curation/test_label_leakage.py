"""A label beside a post is found wherever a model puts it, with any card; what people write about it is not."""

import pytest

from polar_pipeline.curation.label_leakage import label_leak
from polar_pipeline.task.card import Label, load_card
from polar_pipeline.task.languages import LANGUAGES

LABEL = load_card("polar").label
OTHER = Label(column="x", negative="harmless", positive="toxic", definition="")
POST = "They are all thieves, every single one of them"


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize(
    "told",
    [
        "Polarized: {}",
        "Not polarized: {}",
        "not polarized - {}",
        "Label: 1. {}",
        "Label: 0\n{}",
        "(polarized) {}",
        "[Not Polarized] {}",
        "#polarized {}",
        "{} #NotPolarized",
        "{} (not polarized)",
        "Class: polarized. {}",
        "{}\nlabel: polarized",
        "POLARIZED\n{}",
        '"polarized": "{}"',
        "Non-polarized post: {}",
        "**Polarized** {}",
        "Polarized — {}",
        "Polarized (1): {}",
        "{} -- polarized",
        "Post (not polarized): {}",
        "{} (Label = 1)",
        "{} => polarized",
        "{} | label: 0",
        "Class 0: {}",
        "Polarization: yes. {}",
        "Polarization level: high. {}",
        "{} Polarization score: 0.9",
        '{"text": "{}", "label": 1}',
        '{"polarized": true, "post": "{}"}',
        "A new post, polarized: {}",
    ],
)
def test_english_labels_are_found_in_every_language(code: str, told: str) -> None:
    assert label_leak(told.replace("{}", POST), code, LABEL)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("deu", "Polarisiert: {}"),
        ("deu", "Nicht polarisiert: {}"),
        ("deu", "Label: polarisiert. {}"),
        ("deu", "Klasse – polarisierend. {}"),
        ("spa", "Polarizado: {}"),
        ("rus", "Поляризованный: {}"),
        ("rus", "Метка: не поляризовано. {}"),
        ("zho", "标签：极化。{}"),
        ("zho", "【非极化】{}"),
        ("hin", "ध्रुवीकृत नहीं: {}"),
        ("tur", "Kutuplaştırıcı değil: {}"),
        ("amh", "ያልተከፋፈለ፦ {}"),
        ("khm", "មិនបែកបាក់៖ {}"),
        ("arb", "{} #مستقطب"),
        ("fas", "غیرقطبی: {}"),
        ("deu", "Polarisierung: ja. {}"),
        ("zho", "极化：是。{}"),
        ("zho", "极化帖子：{}"),
        ("hin", "लेबल: १ {}"),
        ("hin", "{} (लेबल = ०)"),
        ("tur", "{} -> kutuplaşmış"),
        ("rus", "Уровень поляризации: высокий. {}"),
    ],
)
def test_labels_are_found_in_the_language_of_the_posts(code: str, told: str) -> None:
    assert label_leak(told.format(POST), code, LABEL)


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize(
    "text",
    [
        POST,
        "Society is polarized and nobody talks to anybody",
        "Polarization: how it tears us apart",
        "We are polarized, so what",
        "Type 2 diabetes: what they do not tell you",
        "Label: 10% off today",
        "She said yes. He said no - and so on",
        "The label polarized is thrown around too much",
        "Polarized-light microscopy is fun",
        "He is #1 in his class: 10 points",
        "#polarizedlenses are on sale",
        "So tired of this (polarized sunglasses) debate today",
    ],
)
def test_what_people_write_about_the_subject_passes(code: str, text: str) -> None:
    assert label_leak(text, code, LABEL) == ""


def test_another_cards_labels_are_its_own_words() -> None:
    for told in (
        "Toxic: {}",
        "Not toxic: {}",
        "Harmless - {}",
        "(harmless) {}",
        "{} #toxic",
        "Label: toxic {}",
        "Etikett: 1. {}",
    ):
        assert label_leak(told.format(POST), "deu", OTHER)
    assert label_leak(f"Polarized: {POST}", "deu", OTHER) == label_leak(f"Polarisiert: {POST}", "deu", OTHER) == ""
