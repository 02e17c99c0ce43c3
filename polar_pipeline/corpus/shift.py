"""Covariate shift without labels: how well a classifier tells train posts from test posts by their text alone.

An AUC of 0.5 means that it cannot; near 1 means that test comes from another source, so that out-of-fold scores are too
optimistic. (A classifier two-sample test: Lopez-Paz & Oquab 2017.)
"""

import numpy as np
import pandas as pd

from polar_pipeline.corpus.folds import deal
from polar_pipeline.corpus.text import duplicate_groups
from polar_pipeline.errors import InputError

FOLDS = 5
# posts of each side that are used: enough for a standard error of about 0.01, and a second on one core
POSTS_PER_SIDE = 1500
FEATURES = 2**17


def shift_auc(train_texts: list[str], test_texts: list[str], seed: int) -> float:
    """Cross-validated AUC of a train-or-test classifier on character n-grams, the mean over folds. Deterministic.

    Duplicates share a fold, so that a post with a duplicate on the other side is scored by a model that saw neither.
    Raises InputError when a side has fewer than two distinct posts.
    """
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import PredefinedSplit, cross_val_score

    train, test = _sample(train_texts, seed), _sample(test_texts, seed + 1)
    sides = np.repeat([0, 1], [len(train), len(test)])
    groups = duplicate_groups(pd.DataFrame({"text": train + test}))
    distinct = [len(np.unique(groups[sides == side])) for side in (0, 1)]
    if min(distinct) < 2:
        raise InputError(
            "shift is measured between two sides of at least 2 distinct posts, "
            f"not {distinct[0]} in train and {distinct[1]} in test: add posts."
        )
    # document frequencies of both sides: unlabelled text may be used
    counts = HashingVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), n_features=FEATURES, alternate_sign=False, norm=None
    ).transform(train + test)
    features = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    # a loose tolerance changes the AUC by less than 0.001 and saves a third of the time
    model = LogisticRegression(solver="liblinear", random_state=0, tol=1e-2)
    folds = PredefinedSplit(deal(groups, sides, min(FOLDS, *distinct), seed))
    return float(cross_val_score(model, features, sides, cv=folds, scoring="roc_auc").mean())


def _sample(texts: list[str], seed: int) -> list[str]:
    if len(texts) <= POSTS_PER_SIDE:
        return texts
    chosen = np.random.default_rng(seed).choice(len(texts), size=POSTS_PER_SIDE, replace=False)
    return [texts[row] for row in np.sort(chosen)]
