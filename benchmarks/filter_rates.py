"""What the quality filter does to real posts, and to junk that was planted: it should leave the first and catch the second.

Usage: POLAR_DATA_DIR=... python benchmarks/filter_rates.py

Real: the share of each language's training posts that any stage objects to. Planted, on posts of dev: another language (of
the same script where there is one), a phrase of meta-talk or refusal, a near-copy of a training post, left-over markup, a
text cut at a comma. The share of each kind that is caught.
"""

import numpy as np
import pandas as pd

from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.curation.cleaning import clean
from polar_pipeline.curation.curate import REAL, curate
from polar_pipeline.curation.embedding import NgramEmbedder
from polar_pipeline.curation.filters import objections, reference
from polar_pipeline.curation.phrases import phrases
from polar_pipeline.defs.project import Project
from polar_pipeline.synthesis.posts import as_table
from polar_pipeline.task.languages import LANGUAGES, language
from polar_pipeline.task.profile import CurationSettings

PLANTED = 100  # of each kind
# posts of which language are planted as foreign ones: one of the same script, alike where that is possible
FOREIGN = {
    "amh": "arb", "arb": "fas", "ben": "hin", "deu": "eng", "eng": "deu", "fas": "arb", "hau": "swa", "hin": "ben",
    "ita": "spa", "khm": "mya", "mya": "khm", "nep": "hin", "ori": "ben", "pan": "arb", "pol": "deu", "rus": "eng",
    "spa": "ita", "swa": "hau", "tel": "hin", "tur": "deu", "urd": "arb", "zho": "eng",
}  # fmt: skip


def planted(posts: pd.DataFrame, other: pd.DataFrame, code: str, generator: np.random.Generator) -> pd.DataFrame:
    """Rows of each kind, as synthetic posts; `source` says the kind."""
    train = posts[posts["split"] == "train"]["text"].tolist()
    base = posts[posts["split"] == "dev"]["text"].tolist()
    foreign = [text for text in other["text"] if len(text) > 40]
    known = phrases(code)
    rows = []
    for kind in ("language", "meta", "copy", "markup", "cut"):
        for number in range(PLANTED):
            text = clean(base[number % len(base)])
            if kind == "language":
                text = foreign[int(generator.integers(len(foreign)))]
            elif kind == "meta":
                text = f"{known[int(generator.integers(len(known)))]}: {text}"
            elif kind == "copy":
                text = train[int(generator.integers(len(train)))].lower() + " !!"
            elif kind == "markup":
                text = f'<a href="x">{text}'
            else:
                words = text.split(" ")
                text = " ".join(words[: max(len(words) // 2, 1)]) + ","
            rows.append({"id": f"{kind}_{number}", "text": text, "label": 1, "split": "train", "fold": 0, "source": kind,
                         "parent_id": "", "request": ""})  # fmt: skip
    return as_table(rows, Project.load("cpu").card)


def main() -> None:
    """One line per language."""
    project = Project.load("cpu")
    data, generator = project.data, np.random.default_rng(0)
    everything = {code: read_posts(data, code, project.card) for code in LANGUAGES}
    print("          real posts   planted, caught")
    print("language     flagged   language   meta   copy  markup    cut")
    for code, posts in everything.items():
        train = posts.loc[posts["split"] == "train", "text"].tolist()
        found = objections([clean(text) for text in train], reference(language(code), train))
        flagged = np.mean([objection is not None for objection in found])
        table = planted(posts, everything[FOREIGN[code]], code, generator)
        curated = curate(posts.assign(fold=0), table, code, CurationSettings(), NgramEmbedder())
        caught = 1 - curated[curated["source"] != REAL].groupby("source")["keep"].mean()
        kinds = "".join(f"{caught[kind]:8.0%}" for kind in ("language", "meta", "copy", "markup", "cut"))
        print(f"{code:8} {flagged:11.2%} {kinds}")


if __name__ == "__main__":
    main()
