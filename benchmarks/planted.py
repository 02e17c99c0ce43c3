"""Junk to be planted among synthetic posts, by kind.

Seen when the filter was made: `meta` and `refusal` (its own examples), `label` (planted.yaml), `later`
(planted_later.yaml), `fresh` (planted_fresh.yaml, unseen when it was first measured). Unseen: the kinds that begin with
`last` (planted_last.yaml).
"""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from polar_pipeline.curation.label_leakage import word_lists
from polar_pipeline.synthesis.posts import posts_table
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import LANGUAGES

COUNT = 100  # of each kind
SPOKEN = ("meta", "refusal", "label")
NEW = tuple(f"last {kind}" for kind in SPOKEN)
KINDS = (*SPOKEN, "later", "fresh", *NEW, "english", "case", "words", "markup", "comma", "middle")
COPIES = ("case", "words")
LABELS, LATER, FRESH, LAST = (
    yaml.safe_load((Path(__file__).parent / name).read_text(encoding="utf-8"))
    for name in ("planted.yaml", "planted_later.yaml", "planted_fresh.yaml", "planted_last.yaml")
)
SAID = {code: found | LABELS[code] for code, found in word_lists("assistant_talk_examples").items()}
MARKUP = (
    '<a href="x">{}</a>',
    '{{"text": "{}"}}',
    "{} [1](https://x.org)",
    "<section>{}</section>",
    "<img src=x> {}",
    "{}</article>",
)


def neighbours(code: str) -> list[str]:
    """The other languages of the release whose main script is the one of this language; English where there is none."""
    script = LANGUAGES[code].scripts[0]
    found = [other for other in LANGUAGES if other != code and LANGUAGES[other].scripts[0] == script]
    return found or ["eng"]


def foreign(texts: list[str]) -> list[str]:
    """Posts of another language, long enough to be told."""
    long = [text for text in texts if len(text) > 40]
    return [str(text) for text in np.random.default_rng(0).choice(long, COUNT)]


def planted(code: str, base: list[str], train: list[str], card: TaskCard) -> pd.DataFrame:
    """Rows of each kind, which `source` says. `base`: unseen posts of the language."""
    generator = np.random.default_rng(0)
    split = _pieces if LANGUAGES[code].scripts[0] == "Han" else str.split
    vocabulary = sorted({word for text in train for word in split(text)})
    long = [text for text in train if len(split(text)) >= 8]
    rows = [
        (kind, _junk(kind, number, base[number % len(base)], str(generator.choice(long)), vocabulary, code, generator))
        for kind in KINDS
        for number in range(COUNT)
    ]
    table = [
        {"id": f"{code}_planted_{number}", "text": text, "label": 1, "split": "train", "fold": 0, "source": kind}
        for number, (kind, text) in enumerate(rows)
    ]
    return posts_table(table, card)


def _junk(
    kind: str, number: int, text: str, known: str, vocabulary: list[str], code: str, generator: np.random.Generator
) -> str:
    if kind in SPOKEN:
        return _said(SAID[code], kind, number, text)
    if kind in NEW:
        return _said(LAST[code], kind.removeprefix("last "), number, text)
    if kind == "fresh":
        return _said(FRESH[code], SPOKEN[number % 3], number // 3, text)
    if kind == "later":
        return _said(LATER[code], SPOKEN[number % 3], number // 3, text)
    if kind == "english":  # what models fall back to, whatever the language
        return _said(SAID["eng"], ("refusal", "label")[number % 2], number // 2, text)
    if kind == "case":
        return known.lower() + " !!"
    if kind == "words":  # one or two of its words are others
        joint = "" if LANGUAGES[code].scripts[0] == "Han" else " "
        words = known.split() if joint else _pieces(known)
        for at in generator.choice(len(words), min(1 + number % 2, len(words)), replace=False):
            words[at] = str(generator.choice(vocabulary))
        return joint.join(words)
    if kind == "markup":
        return MARKUP[number % len(MARKUP)].format(text)
    cut = text[: max(int(len(text) * generator.uniform(0.3, 0.8)), 2)]
    return cut if kind == "middle" else cut.rsplit(" ", 1)[0].rstrip(",.!? ") + ","


def _said(phrasings: dict[str, list[str]], kind: str, number: int, text: str) -> str:
    said = phrasings[kind][number % len(phrasings[kind])]
    return said.replace("{}", text) if "{}" in said else said if kind == "refusal" else f"{said} {text}"


def _pieces(text: str) -> list[str]:
    """Two characters at a time: about the length of a Chinese word, where no spaces tell them apart."""
    return [text[at : at + 2] for at in range(0, len(text), 2)]
