"""Junk to be planted among synthetic posts, by kind. What a filter was developed on must not stand here."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from polar_pipeline.synthesis.posts import as_table
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import LANGUAGES

COUNT = 100  # of each kind
KINDS = ("meta", "refusal", "english", "case", "words", "markup", "comma", "middle")
COPIES = ("case", "words")
SAID = yaml.safe_load((Path(__file__).parent / "planted.yaml").read_text(encoding="utf-8"))
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


def planted(code: str, base: list[str], train: list[str], others: dict[str, list[str]], card: TaskCard) -> pd.DataFrame:
    """Rows of each kind; `source` says the kind, another language's code for its posts. `base`, `others`: unseen posts."""
    generator = np.random.default_rng(0)
    rows: list[tuple[str, str]] = []
    for other, texts in others.items():
        long = [text for text in texts if len(text) > 40]
        rows += [(other, str(text)) for text in generator.choice(long, COUNT)]
    vocabulary = sorted({word for text in train for word in text.split()})
    long = [text for text in train if len(text.split()) >= 8] or train
    for kind in KINDS:
        for number in range(COUNT):
            text = base[number % len(base)]
            rows.append((kind, _junk(kind, number, text, str(generator.choice(long)), vocabulary, code, generator)))
    table = [
        {"id": f"{code}_planted_{number}", "text": text, "label": 1, "split": "train", "fold": 0, "source": kind}
        for number, (kind, text) in enumerate(rows)
    ]
    return as_table(table, card)


def _junk(
    kind: str, number: int, text: str, known: str, vocabulary: list[str], code: str, generator: np.random.Generator
) -> str:
    if kind == "meta":
        return f"{SAID[code]['meta'][number % len(SAID[code]['meta'])]} {text}"
    if kind in ("refusal", "english"):
        said = SAID[code if kind == "refusal" else "eng"]["refusal"]
        return str(said[number % len(said)])
    if kind == "case":
        return known.lower() + " !!"
    if kind == "words":  # one or two of its words are others
        words = known.split()
        for at in generator.choice(len(words), min(1 + number % 2, len(words)), replace=False):
            words[at] = str(generator.choice(vocabulary))
        return " ".join(words)
    if kind == "markup":
        return MARKUP[number % len(MARKUP)].format(text)
    cut = text[: max(int(len(text) * generator.uniform(0.3, 0.8)), 2)]
    return cut if kind == "middle" else cut.rsplit(" ", 1)[0].rstrip(",.!? ") + ","
