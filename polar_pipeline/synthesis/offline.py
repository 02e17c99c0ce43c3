"""Without an endpoint: perturbed copies of real training posts, label kept. They are noise, not new posts, and named so.

Each is a real post after two of: a mention made anonymous, letters of one case, a typo, look-alike letters, a word dropped, two words
swapped. What a script does not have (case, spaces between words, look-alikes) is not tried on it.
"""

import numpy as np
import pandas as pd
import regex

from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.plan import Balance, prompt_pool
from polar_pipeline.synthesis.posts import as_table, ids
from polar_pipeline.task.card import TaskCard

SOURCE = "perturbed"
_MENTION = regex.compile(r"@[\w.]+")
# letters that people swap in to get past filters, by script
_ALIKE = str.maketrans("aeocpxyiаеосрху", "аеосрхуіaeocpxy")


def perturbed_posts(
    posts: pd.DataFrame, language: str, card: TaskCard, settings: SynthesisSettings, seed: int
) -> pd.DataFrame:
    """`settings.posts` perturbed copies, balanced like a plan; fold and parent are those of the real post. Deterministic."""
    pool = prompt_pool(posts)
    generator = np.random.default_rng(seed)
    labels = Balance(pool["label"].to_numpy(dtype=int), settings.positive_share).labels(settings.posts)
    decks = {label: generator.permutation(np.flatnonzero(pool["label"] == label)) for label in (0, 1)}
    dealt = {0: 0, 1: 0}  # each post once before any comes twice
    rows: list[dict[str, object]] = []
    for number, label in enumerate(labels):
        deck = decks[int(label)]
        real = pool.iloc[int(deck[dealt[int(label)] % len(deck)])]
        dealt[int(label)] += 1
        text = perturb(str(real["text"]), generator)
        rows.append(
            {
                "id": f"{language}_syn_{number:05}_0",
                "text": text,
                "label": int(label),
                "split": "train",
                "fold": real["fold"],
                "source": SOURCE,
                "parent_id": real["id"],
                "request": "",
                "shown": ids((str(real["id"]),)),
            }
        )
    return as_table(rows, card)


def perturb(text: str, generator: np.random.Generator) -> str:
    """Two changes of those that change this text; the text itself when none does."""
    changed, left = text, 2
    for place in generator.permutation(len(_CHANGES)):
        after = _CHANGES[place](changed, generator)
        if after != changed and after.strip():
            changed, left = after, left - 1
        if not left:
            break
    return changed


def _mention(text: str, generator: np.random.Generator) -> str:  # noqa: ARG001
    return str(_MENTION.sub("@USER", text))


def _case(text: str, generator: np.random.Generator) -> str:
    return text.upper() if generator.random() < 0.2 else text.lower()


def _typo(text: str, generator: np.random.Generator) -> str:
    """Two neighbouring letters of one grapheme each change places, or one is doubled."""
    parts = regex.findall(r"\X", text)
    spots = [at for at in range(1, len(parts) - 1) if parts[at].isalpha() and parts[at + 1].isalpha()]
    if not spots:
        return text
    at = spots[int(generator.integers(len(spots)))]
    if generator.random() < 0.5:
        parts[at], parts[at + 1] = parts[at + 1], parts[at]
    else:
        parts[at] += parts[at]
    return "".join(parts)


def _look_alike(text: str, generator: np.random.Generator) -> str:
    words = text.split(" ")
    at = int(generator.integers(len(words)))
    words[at] = words[at].translate(_ALIKE)
    return " ".join(words)


def _drop(text: str, generator: np.random.Generator) -> str:
    words = text.split(" ")
    if len(words) < 4:
        return text
    del words[int(generator.integers(len(words)))]
    return " ".join(words)


def _swap(text: str, generator: np.random.Generator) -> str:
    words = text.split(" ")
    if len(words) < 3:
        return text
    at = int(generator.integers(len(words) - 1))
    words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words)


_CHANGES = (_mention, _case, _typo, _look_alike, _drop, _swap)
