"""What the quality filter does to real posts, which it should leave, and to planted junk, which it should catch.

Usage: POLAR_DATA_DIR=... [LANGUAGE_MODEL=lid.176.ftz] python benchmarks/filter_rates.py [language ...]

Real: the share of each language's training posts that any stage objects to, each judged by what was learned from the
other four fifths. Planted (planted.py): posts of other languages of the script, from their test files, a hundred of one
language as if a model wrote nothing else; introductions, refusals, labels told beside a post, and some of the three
that were written after the lists (later) or are in English; copies of training posts in other case or with one or two
other words, markup, and texts cut off. The share of each kind that is not kept. Beside it, where synthetictext is
installed (`pip install --no-deps synthetictext==0.2.0`): what its filters object to among real positive posts, as
shipped and with the keywords that its documentation gives as an example.

Of the pairs of languages in `MIXED`, whose files hold many posts of the other language, a second share counts only the
planted posts that are in the language they are named for, by a fastText identifier that the filter did not use
(LANGUAGE_MODEL, as lid.176.ftz): not those that it takes for a language of the file that they are planted in.
"""

import logging
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from planted import COPIES, KINDS, foreign, neighbours, planted

from polar_pipeline.corpus.language_model import fasttext_identifier
from polar_pipeline.corpus.posts import REAL, read_posts
from polar_pipeline.curation.cleaning import clean
from polar_pipeline.curation.curate import curate
from polar_pipeline.curation.embedding import NgramEmbedder
from polar_pipeline.curation.quality_filter import QualityFilter
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.settings.curation import CurationSettings
from polar_pipeline.task.card import Label
from polar_pipeline.task.languages import LANGUAGES, language

FOLDS = 5
# what the identifier calls posts that are right in the file
MIXED = {
    ("eng", "hau"): "en", ("hau", "eng"): "ha", ("pan", "urd"): "pa", ("urd", "pan"): "ur", ("fas", "pan"): "fa",
}  # fmt: skip
EXAMPLE = {1: ["slur", "threat", "insult"]}  # marker_keywords in the documentation of its TaskSpec


def flagged_held_out(code: str, texts: list[str], label: Label) -> float:
    """The share of real posts that is objected to by what the other folds taught."""
    fold = np.random.default_rng(1).permutation(len(texts)) % FOLDS
    wrong = 0
    for held in range(FOLDS):
        others = [text for text, at in zip(texts, fold, strict=True) if at != held]
        known = QualityFilter(language(code), others, label)
        found = known.objections([text for text, at in zip(texts, fold, strict=True) if at == held])
        wrong += sum(objection is not None for objection in found)
    return wrong / len(texts)


def told_apart(known: QualityFilter, code: str, other: str, texts: list[str]) -> str:
    """The share of posts of another language that is objected to; of mixed files also of those that truly are in it."""
    caught = [found is not None for found in known.objections(texts)]
    shares = f"{np.mean(caught):.0%}"
    model = os.environ.get("LANGUAGE_MODEL")
    if model and (code, other) in MIXED:
        said = [fasttext_identifier(Path(model)).identify(text).code for text in texts]
        true = [found for found, name in zip(caught, said, strict=True) if name != MIXED[code, other]]
        shares += f" (of the {len(true)} that are {other}: {np.mean(true):.0%})"
    return shares


def flagged_by_peer(posts: pd.DataFrame) -> str:
    """The shares of real positive posts that synthetictext's filters remove, as shipped and with the keywords."""
    try:
        from synthetictext import TaskSpec
        from synthetictext.filters.pipeline import FilterPipeline
    except ImportError:
        return ""
    logging.disable(logging.INFO)
    positive = posts[(posts["split"] == "train") & (posts["label"] == 1)][["text", "label"]]
    shares = []
    for keywords in (None, EXAMPLE):
        task = TaskSpec(
            "polarization", {0: "not polarized", 1: "polarized"}, "polarized posts", marker_keywords=keywords
        )
        kept = FilterPipeline.default(task, use_embeddings=False).run(positive)
        shares.append(1 - len(kept) / len(positive))
    return "".join(f"{share:9.1%}" for share in shares)


def main() -> None:
    """One line per language."""
    project = Project.load("cpu")
    everything = {code: read_posts(project.data, code, project.card) for code in LANGUAGES}
    print("         real posts  planted, not kept" + " " * 94 + "synthetictext, real positives")
    print(
        "language    flagged "
        + "".join(f"{kind.replace('refusal', 'refus'):>{max(8, len(kind) + 1)}}" for kind in KINDS)
        + "   shipped keywords  other languages"
    )
    for code in sys.argv[1:] or LANGUAGES:
        posts = everything[code]
        train = [clean(text) for text in posts.loc[posts["split"] == "train", "text"]]
        test = posts.index[posts["split"] == "test"]
        base, rest = test[::2], posts.drop(test[::2])  # what junk is made of is no copy of a real post
        unseen = [clean(text) for text in posts.loc[base, "text"]]
        table = planted(code, unseen, train, project.card)
        curated = curate(rest.assign(fold=0), table, code, project.card, CurationSettings(), NgramEmbedder())
        junk = curated[curated["source"] != REAL]
        # the same refusal comes many times, and only copies should be caught for being copies
        missed = junk["keep"] | ((junk["stage"] == "duplicate") & ~junk["source"].isin(COPIES))
        missed &= ~junk["text"].isin(unseen)  # cleaning took the introduction away, and the post is right
        caught = 1 - missed.groupby(junk["source"]).mean()
        known = QualityFilter(language(code), train, project.card.label)
        others = {
            other: foreign([clean(text) for text in everything[other].query("split == 'test'")["text"]])
            for other in neighbours(code)
        }
        told = {other: told_apart(known, code, other, texts) for other, texts in others.items()}
        peer = flagged_by_peer(posts) or "   not importable "
        print(
            f"{code:8} {flagged_held_out(code, train, project.card.label):10.2%} "
            + "".join(f"{caught[kind]:{max(8, len(kind) + 1)}.0%}" for kind in KINDS)
            + f" {peer}  " + " ".join(f"{other} {share}" for other, share in told.items()), flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except InputError as error:  # no official data
        raise SystemExit(str(error)) from None
