"""One language's evidence: the macro-F1 of its decision with intervals, on which posts, and every warning about it.

No drawing and no HTML here. Functions that take `judged` get the table of `judged_posts`; `decided` and `dev` are some
of its rows. `read_test_labels` alone reads labels of test.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.corpus.audit import Audit
from polar_pipeline.corpus.folds import scored_posts
from polar_pipeline.corpus.labels import read_labels, target_labels
from polar_pipeline.corpus.parts import read_parts
from polar_pipeline.corpus.posts import made_ids
from polar_pipeline.curation.agreement import agreements
from polar_pipeline.curation.curate import funnel, type_funnel
from polar_pipeline.curation.diversity import diversity, gallery
from polar_pipeline.decision.decide import language_seed
from polar_pipeline.decision.label_errors import doubtful_labels
from polar_pipeline.decision.record import Decision, Decisions, Estimate
from polar_pipeline.decision.targets import metric_of, nested_targets
from polar_pipeline.decision.thresholds import best_threshold
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.intervals import metric_interval, metric_resamples
from polar_pipeline.metrics.metric import MACRO_F1, Metric
from polar_pipeline.metrics.scores import Curve, Floats, Ints, reliability, threshold_curve
from polar_pipeline.report.records import DevTuned, LabelEvidence, LanguageEvidence, Mistake, Review
from polar_pipeline.settings.decision import ReportSettings
from polar_pipeline.task.card import TaskCard

CURVE_POINTS = 200  # more than a small plot can show
ERROR_COLUMNS = ["language", "split", "id", "post", "label", "prediction", "probability", "fold", "margin"]
ERROR_COLUMNS += ["final_prediction"]
_LONGEST = 280  # characters of an example; the rest says little and fills the page


class LanguageResults(NamedTuple):
    """The tables and records of one language that the report and the export are made from."""

    posts: pd.DataFrame  # as `raw_posts` holds them
    predictions: pd.DataFrame  # what `predict_targets` made of them
    decisions: Decisions
    audit: Audit
    card: TaskCard
    curated: pd.DataFrame | None = None  # with synthetic posts, as `deduped_posts` holds them
    asked_types: Mapping[str, int] = MappingProxyType({})  # positive posts that were asked for, by type


class Results(NamedTuple):
    """Results by language code, and for each language without current results the reason."""

    present: dict[str, LanguageResults]
    absent: dict[str, str]


def language_evidence(
    results: LanguageResults, test_labels: pd.DataFrame | None, settings: ReportSettings, seed: int
) -> LanguageEvidence:
    """Measure one language.

    `test_labels` has a column per target and is indexed by id (posts without labels may be missing), or None where
    nobody has any. The headline estimate is the decisions'; everything else here uses the final thresholds.
    Raises InputError when the predictions are not of these posts.
    """
    decisions, audit, curated, card = results.decisions, results.audit, results.curated, results.card
    metric = metric_of(card)
    table = with_test_labels(judged_posts(results), test_labels)
    held_out = table[table["nested"].notna()]
    truth, nested = (_matrix(held_out, name) for name in ("label", "nested"))
    splits = table.loc[table["target"] == card.targets[0], "split"]
    doubtful = _doubtful(held_out, card)
    return LanguageEvidence(
        language=decisions.language,
        posts={str(split): int(count) for split, count in splits.value_counts(sort=False).items()},
        out_of_fold=decisions.out_of_fold,
        resamples=metric_resamples(truth, nested, settings.resamples, language_seed(seed, decisions.language), metric),
        dev_decided=bool((held_out["split"] == "dev").any()),
        dev=_estimate(table[table["split"] == "dev"], settings, seed, metric),
        test=_estimate(table[table["split"] == "test"], settings, seed, metric),
        labels=tuple(
            _label_evidence(one, table[table["target"] == one.target], card, settings, seed)
            for one in decisions.targets
        ),
        audit=audit,
        types_unseen=tuple(name for name, count in audit.types_train.items() if count == 0),
        funnel=tuple(funnel(curated)) if curated is not None else (),
        type_funnel=() if curated is None else tuple(type_funnel(curated, results.asked_types)),
        agreements=() if curated is None else tuple(agreements(curated)),
        diversity={} if curated is None else diversity(curated),
        gallery=() if curated is None else tuple(gallery(curated)),
        class_weights=decisions.class_weights,
        doubtful=len(doubtful),
        doubts=tuple(
            {str(name): value for name, value in row.items()} | {"text": _shortened(str(row["text"]))}
            for row in doubtful.head(settings.error_examples).to_dict("records")
        ),
    )


def _label_evidence(
    decision: Decision, table: pd.DataFrame, card: TaskCard, settings: ReportSettings, seed: int
) -> LabelEvidence:
    """Measure one label; `table` are its rows of `judged_posts`."""
    metric = metric_of(card).of_one_label
    held_out, test = table[table["nested"].notna()], table[table["split"] == "test"]
    labels, probabilities = _int(held_out["label"]), held_out["probability"].to_numpy(dtype=float)
    known = table[table["label"].notna()]
    return LabelEvidence(
        name=card.shown(decision.target),
        decision=decision,
        positives=float(known.loc[known["split"] != "test", "label"].mean()),
        predicted_positives=float(test["prediction"].mean()) if len(test) else None,
        test=_estimate(test, settings, seed, metric),
        curve=thin(threshold_curve(labels, probabilities, metric.measure)),
        diagram=reliability(labels, probabilities),
        score_distance=score_distance(probabilities, test["probability"].to_numpy(dtype=float)),
        # of exclusive classes, no threshold of one alone decides
        dev_tuned=None if card.kind == "multiclass" else dev_tuned(held_out, known[known["split"] == "dev"], metric),
        review=review(held_out, metric),
        mistakes=mistakes(held_out, settings.error_examples),
    )


def judged_posts(results: LanguageResults) -> pd.DataFrame:
    """Each scored post and target: target, split, id, label, text, fold, probability, prediction, margin, review,
    nested.

    `nested` (Int8) is missing if the post was not decided on. Raises InputError if the predictions are of other posts.
    """
    posts, predictions, decisions = results.posts, results.predictions, results.decisions
    keys = ["target", "split", "id"]
    scored = scored_posts(posts).reset_index(drop=True)
    truth = target_labels(scored, results.card)
    tables = [scored[["split", "id", "text"]].assign(target=name, label=truth[name]) for name in results.card.targets]
    wanted: pd.DataFrame = pd.concat(tables, ignore_index=True)
    if set(map(tuple, wanted[keys].to_numpy())) != set(map(tuple, predictions[keys].to_numpy())):
        raise InputError(
            f"predictions of {decisions.language} are not of its posts ({len(predictions)} rows and {len(wanted)}): "
            f"materialize ensemble_predictions for {decisions.language} again."
        )
    nested = nested_targets(decisions, posts)["prediction"].rename("nested").astype("Int8")
    table = wanted[[*keys, "label", "text"]].merge(predictions, on=keys, validate="one_to_one")
    return table.join(nested, on=keys)


def with_test_labels(judged: pd.DataFrame, test_labels: pd.DataFrame | None) -> pd.DataFrame:
    """The posts of `judged` with the labels of test (a column per target, by id) filled in, where there are any."""
    if test_labels is None:
        return judged
    known = pd.concat({name: test_labels[name] for name in test_labels}, names=["target", "id"]).rename("found")
    found = judged[["target", "id"]].join(known, on=["target", "id"])["found"].astype("Int8")
    return judged.assign(label=judged["label"].where(judged["split"] != "test", found))


def _matrix(judged: pd.DataFrame, column: str) -> Ints:
    """A column of 0/1 as (posts, targets): posts come in the same order for every target."""
    count = judged["target"].nunique()
    values: Ints = judged[column].to_numpy(dtype=np.int64).reshape(count, -1).T
    return values


def _doubtful(held_out: pd.DataFrame, card: TaskCard) -> pd.DataFrame:
    """The doubtful labels among the decided posts of `judged_posts`."""
    first = held_out[held_out["target"] == card.targets[0]]
    truth = pd.DataFrame(_matrix(held_out, "label"), columns=list(card.targets), index=first.index)
    label = truth.to_numpy().argmax(axis=1) if card.kind == "multiclass" else truth.max(axis=1)
    posts = first[["split", "id", "text"]].assign(label=label)
    posts = pd.concat([posts, truth], axis=1) if card.kind == "multilabel" else posts
    return doubtful_labels(posts, held_out, card)


def score_distance(decided: Floats, test: Floats) -> float | None:
    """Kolmogorov-Smirnov distance between two sets of probabilities: 0 when alike, 1 when apart. None without test."""
    if not len(test):
        return None
    from scipy.stats import ks_2samp

    return float(ks_2samp(decided, test).statistic)


def dev_tuned(decided: pd.DataFrame, dev: pd.DataFrame, metric: Metric = MACRO_F1) -> DevTuned | None:
    """The best threshold on `dev`, its gain there and on the posts of `decided` outside dev. None without either."""
    elsewhere = decided[decided["split"] != "dev"]
    if dev.empty or elsewhere.empty:
        return None
    threshold = best_threshold(_int(dev["label"]), dev["probability"].to_numpy(dtype=float), metric.measure)

    def gain(rows: pd.DataFrame, decided_by: str) -> float:
        labels, tuned = _int(rows["label"]), (rows["probability"] >= threshold).astype(int)
        return metric.value(labels, _int(tuned)) - metric.value(labels, _int(rows[decided_by]))

    return DevTuned(threshold, gain(dev, "prediction"), gain(elsewhere, "nested"))


def review(decided: pd.DataFrame, metric: Metric = MACRO_F1) -> Review:
    """The share of errors among the marked posts, and the macro-F1 of the others."""
    marked = decided["review"].to_numpy(dtype=bool)
    wrong = (decided["nested"] != decided["label"]).to_numpy(dtype=bool)
    rest = decided[~marked]
    return Review(
        float(marked.mean()),
        float(np.sum(wrong & marked) / max(wrong.sum(), 1)),
        metric.value(_int(rest["label"]), _int(rest["nested"])),
    )


def errors(language: str, judged: pd.DataFrame) -> pd.DataFrame:
    """All labelled posts with a wrong prediction, in the order of `judged`: `ERROR_COLUMNS`.

    `prediction` is the nested one where there is one, as the headline macro-F1 counts it, else that of the final
    threshold, which `final_prediction` always is. Near the threshold the two can differ.
    """
    table = judged[judged["label"].notna()]
    columns = ERROR_COLUMNS if judged["target"].nunique() == 1 else ["language", "target", *ERROR_COLUMNS[1:]]
    table = table.assign(language=language, post=table["text"], final_prediction=table["prediction"])
    table = table.assign(prediction=table["nested"].fillna(table["prediction"]).astype("int8"))
    return table.loc[(table["label"] != table["prediction"]).astype(bool), columns].reset_index(drop=True)


def mistakes(decided: pd.DataFrame, count: int) -> tuple[Mistake, ...]:
    """The `count` wrong predictions farthest from the threshold, half of each label; ties go by id."""
    wrong = decided[decided["nested"] != decided["label"]].sort_values(["margin", "id"], ascending=[False, True])
    chosen = [wrong[wrong["label"] == label].head(share) for label, share in ((1, (count + 1) // 2), (0, count // 2))]
    rows = pd.concat(chosen)[["id", "text", "label", "probability"]]
    return tuple(
        Mistake(post, _shortened(text), int(label), float(probability))
        for post, text, label, probability in rows.itertuples(index=False)
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def thin(curve: Curve) -> Curve:
    """At most `CURVE_POINTS` points of a curve over probabilities; the infinite ends become 0 and 1."""
    keep = np.unique(np.linspace(0, len(curve.thresholds) - 1, CURVE_POINTS).round().astype(int))
    return Curve(np.clip(curve.thresholds[keep], 0.0, 1.0), curve.values[keep])


def _estimate(rows: pd.DataFrame, settings: ReportSettings, seed: int, metric: Metric) -> Estimate | None:
    """The metric of those posts that have all their labels, with the final thresholds."""
    known = rows[rows["label"].notna().groupby([rows["split"], rows["id"]]).transform("all")]
    if known.empty:
        return None
    labels, predictions = (_matrix(known, name) for name in ("label", "prediction"))
    interval = metric_interval(labels, predictions, settings.resamples, seed, metric)
    return Estimate(value=interval.value, low=interval.low, high=interval.high, posts=len(labels))


def _int(column: "pd.Series[int]") -> Ints:
    values: Ints = column.to_numpy(dtype=np.int64)
    return values


def read_test_labels(data: Path, language: str, card: TaskCard) -> pd.DataFrame | None:
    """0/1 labels of one language's test posts (Int8, a column per target, indexed by id), or None when there are none.

    The only function that reads labels of test: nothing that trains, tunes or decides can see them. Posts without a
    label are missing values. Raises InputError that names file, row and column when the file is wrong.
    """
    found = []
    for part in read_parts(data, language, card, lambda _: None):
        if part.split == "test" and len(part.roles.decided) == max(len(card.label_columns), 1):
            part.check(language, card, labels=True, required=False)
            ids = pd.Index(made_ids(part.named), name="id")
            found.append(target_labels(read_labels(part.rows, part.roles, card), card).set_axis(ids))
    labels = pd.concat(found) if found else None
    return None if labels is None or labels.isna().to_numpy().all() else labels
