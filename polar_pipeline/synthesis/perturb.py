"""Synthetic posts without an endpoint: perturbed copies of real training posts, with their labels.

Each copy has two of these changes: mentions made anonymous, letters of one case, a typo, look-alike letters, a word
dropped, two words swapped. A change that does not exist in a script (case, spaces, look-alikes) is skipped.
"""

import numpy as np
import pandas as pd
import regex

from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.examples import ParentSampler
from polar_pipeline.synthesis.plan import LabelBalancer, prompt_pool
from polar_pipeline.synthesis.posts import ids_json, posts_table
from polar_pipeline.task.card import TaskCard

SOURCE = "perturbed"
_MENTION = regex.compile(r"@[\w.]+")
# Latin and Cyrillic letters that people swap to get past filters
_LOOK_ALIKES = str.maketrans("aeocpxyiаеосрху", "аеосрхуіaeocpxy")


def perturbed_posts(
    posts: pd.DataFrame, language: str, card: TaskCard, settings: SynthesisSettings, seed: int
) -> pd.DataFrame:
    """`settings.posts` perturbed copies, with labels balanced like a plan's, and fold and parent of the real post.

    The same posts, settings and seed give the same copies.
    """
    pool = prompt_pool(posts)
    generator = np.random.default_rng(seed)
    known = pool["label"].to_numpy(dtype=int)
    labels = LabelBalancer(known, settings.positive_share, settings.minority_only).labels(settings.posts)
    parents = ParentSampler([pool], generator)
    rows: list[dict[str, object]] = []
    for number, label in enumerate(labels):
        real = parents.draw((label,)).iloc[0]
        rows.append(
            {
                "id": f"{language}_syn_{number:05}_0",
                "text": perturb(str(real["text"]), generator),
                "label": label,
                "split": "train",
                "fold": real["fold"],
                "source": SOURCE,
                "parent_id": real["id"],
                "request": "",
                "shown": ids_json((str(real["id"]),)),
            }
        )
    return posts_table(rows, card)


def perturb(text: str, generator: np.random.Generator) -> str:
    """The text after two of the changes that change it; the text itself if none does."""
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
    """Swap two neighbouring letters, or double one. Graphemes stay whole."""
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
    words[at] = words[at].translate(_LOOK_ALIKES)
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
