"""Made-up comments whose words say their labels, for tests of tasks of several classes and labels."""

import numpy as np
import pandas as pd

CLASSES = {
    "grief": "unhappy tears loss lonely sorrow",
    "joy": "happy smile sunshine love fun",
    "calm": "okay fine usual",
}
_OTHERS = ["the", "day", "was", "a", "long", "one", "and", "we", "went", "home", "there", "with", "people"]


def classed(posts: int, seed: int = 0) -> pd.DataFrame:
    """Comments of one of three moods."""
    generator = np.random.default_rng(seed)
    moods = generator.choice(list(CLASSES), posts, p=[0.2, 0.3, 0.5])
    return pd.DataFrame({"comment": [_text([mood], generator) for mood in moods], "mood": moods})


def labelled(posts: int, seed: int = 0, shares: tuple[float, ...] = (0.3, 0.2)) -> pd.DataFrame:
    """Comments with any of the labels grief and joy, as 0 and 1."""
    generator = np.random.default_rng(seed)
    names = list(CLASSES)[: len(shares)]
    found = generator.random((posts, len(shares))) < shares
    texts = [_text([name for name, has in zip(names, row, strict=True) if has], generator) for row in found]
    return pd.DataFrame(found.astype(int), columns=names).assign(comment=texts)


def _text(moods: list[str], generator: np.random.Generator) -> str:
    words = [word for mood in moods for word in CLASSES[mood].split()]
    return " ".join([*generator.choice(words or _OTHERS, 4), *generator.choice(_OTHERS, 10)])
