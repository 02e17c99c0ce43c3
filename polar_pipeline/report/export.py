"""The report as files for papers and spreadsheets: tables, figures, all errors. Same results, same bytes.

Each column of a table has a sentence. Shares and macro-F1 are between 0 and 1; a cell is empty where there is nothing
to measure.
"""

import csv
from collections.abc import Callable, Iterable
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from polar_pipeline import __version__
from polar_pipeline.curation.curate import STAGES
from polar_pipeline.errors import InputError
from polar_pipeline.report.comparison import Reference, comparable_reference
from polar_pipeline.report.evidence import Results, errors, judged_posts, language_evidence, with_test_labels
from polar_pipeline.report.page import template
from polar_pipeline.report.plots import overview_plot, reliability_plot, threshold_plot
from polar_pipeline.report.records import LabelEvidence, LanguageEvidence, english_name
from polar_pipeline.report.summary import TARGET_HALF_WIDTH, ablations, label_needs, mean_dev_tuned, summary_row
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.files import plain_name, write_atomic
from polar_pipeline.task.card import TaskCard

TestLabels = dict[str, pd.DataFrame | None]
# name, what it holds, and how it is read off a row's object: by the name of an attribute, or by a function
Columns = list[tuple[str, str, str | Callable[[Any], Any]]]


class ReportTable(NamedTuple):
    """A table, what it is about, and what each column holds."""

    title: str
    frame: pd.DataFrame
    columns: dict[str, str]


_SUMMARY: Columns = [
    ("figure", "name of the figure", lambda entry: entry[0]),
    ("value", "its value over all languages", lambda entry: entry[1]),
]
_LANGUAGE: Columns = [
    ("language", "code of the language", "language"),
    ("name", "English name of the language", "name"),
]
_SHIFT: Columns = [
    *_LANGUAGE,
    ("auc", "AUC of a classifier that tells train from test posts by their text", "audit.shift_auc"),
    ("score_distance", "Kolmogorov-Smirnov distance of probabilities on test and out of fold", "first.score_distance"),
    ("positives", "share of positive labels among the labelled posts", "first.positives"),
    ("predicted_positives", "share of positive predictions on test", "first.predicted_positives"),
    ("cross_split_dev", "train posts whose normalised text is also in dev", "audit.cross_split_dev"),
    ("cross_split_test", "train posts whose normalised text is also in test", "audit.cross_split_test"),
    ("conflicts", "groups of equal train posts with different labels", "audit.conflicting_groups"),
    ("response", "what the decision does about the shift", "shift_response"),
]
_DECISIONS: Columns = [  # of a language and one of its labels
    ("language", "code of the language", lambda row: row[0].language),
    ("name", "English name of the language", lambda row: row[0].name),
    ("label", "what positive posts are", lambda row: row[1].name),
    ("macro_f1", "nested out-of-fold macro-F1 of the label", lambda row: row[1].decision.out_of_fold.value),
    ("strategy", "how the members are combined", lambda row: row[1].decision.strategy),
    ("members", "members with their weights: backbone, or backbone.head", lambda row: _members(row[1])),
    ("threshold", "probability from which a post is positive", lambda row: row[1].decision.threshold),
    (
        "threshold_spread",
        "its standard deviation over bootstrap resamples",
        lambda row: row[1].decision.threshold_spread,
    ),
    (
        "calibration_error",
        "expected calibration error, out of fold",
        lambda row: row[1].decision.calibration_error,
    ),
    ("review_share", "share of posts marked for review", lambda row: row[1].review.share),
    ("review_errors", "share of all errors among them", lambda row: row[1].review.share_of_errors),
    ("rest_macro_f1", "macro-F1 of the other posts", lambda row: row[1].review.value_of_rest),
]
_LABEL_NEEDS: Columns = [
    ("language", "code of the language", "evidence.language"),
    ("half_width", "half of the width of the 95% interval of macro-F1", "half_width"),
    ("labelled_posts", "labelled posts under the estimate", "evidence.out_of_fold.posts"),
    ("minority_posts", "labelled posts of the rarer class", "minority"),
    ("labels_needed", f"labels that narrow the interval to +- {TARGET_HALF_WIDTH}", "posts"),
    ("types_without_positives", "types without a positive train post", lambda n: ", ".join(n.evidence.types_unseen)),
]
_ABLATION: Columns = [
    ("name", "what is used, or left out", "name"),
    ("languages", "languages in the means", "languages"),
    ("macro_f1", "mean cross-fitted macro-F1", "value"),
    ("difference", "mean difference to the reference", "difference.value"),
    ("difference_low", "low end of its 95% interval", "difference.low"),
    ("difference_high", "high end of its 95% interval", "difference.high"),
]
_PARTS = {  # title, and the field of a decision
    "strategies": ("Strategies; the reference is the profile's strategy", "candidates"),
    "members": ("The ensemble without one member; the reference has all", "without"),
    "threshold_rules": ("Threshold rules; the reference is the profile's rule", "rules"),
}
_SYNTHETIC: Columns = [
    ("language", "code of the language", lambda row: row[0]),
    ("source", "how the posts were made", lambda row: row[1]["source"]),
    ("label", "label that was asked for", lambda row: row[1]["label"]),
    ("made", "posts made", lambda row: row[1]["made"]),
    *((f"rejected_{s}", f"posts rejected by stage `{s}` first", lambda row, s=s: row[1].get(s, 0)) for s in STAGES),
    ("kept", "posts kept for training", lambda row: row[1]["kept"]),
]


_TYPES: Columns = [
    ("language", "code of the language", lambda row: row[0]),
    ("type", "type that positive posts were asked to have", lambda row: row[1]["type"]),
    *(
        (name, f"positive posts of that type {what}", lambda row, name=name: row[1][name])
        for name, what in (("asked", "in the plan"), ("made", "that came"), ("kept", "that are kept for training"))
    ),
]
_AGREEMENT: Columns = [
    ("language", "code of the language", lambda row: row[0]),
    ("posts", "synthetic or real", lambda row: row[1].posts),
    ("one", "plan (label that was asked for), label (of a real post) or judge", lambda row: row[1].one),
    ("other", "judge, or a backbone that learned from real posts of other folds", lambda row: row[1].other),
    ("common", "posts that both said something of", lambda row: row[1].common),
    ("agreement", "share of them on which both say the same", lambda row: row[1].share),
    ("kappa", "Cohen's kappa: 0 is chance, 1 is always", lambda row: row[1].kappa),
]


def export_report(
    folder: Path, results: Results, test_labels: TestLabels, profile: Profile, card: TaskCard
) -> list[Path]:
    """Write tables, figures, errors.csv and README.txt into `folder`, over files of these names. Returns their paths.

    `test_labels` are by language code, as `read_test_labels` gives them. Raises InputError if `folder` cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}): give another folder with --to.") from error
    evidence = [
        language_evidence(found, test_labels.get(code), profile.report, profile.seed)
        for code, found in results.present.items()
    ]
    reference = comparable_reference(profile, card)
    tables = report_tables(evidence, reference)
    contents: dict[str, bytes] = {}
    for name, table in tables.items():
        contents[f"tables/{name}.csv"] = _csv(table.frame)
        contents[f"tables/{name}.tex"] = _latex(table.frame)
    plots = {"overview": overview_plot(evidence, reference, card.metric)}
    for language, label in [(item.language, label) for item in evidence for label in item.labels]:
        mark = f"{language}_{plain_name(label.name)}" if card.labels else language
        plots |= {
            f"{mark}_threshold": threshold_plot(label, card.metric),
            f"{mark}_reliability": reliability_plot(label),
        }
    for name, plot in plots.items():
        contents[f"figures/{name}.png"], contents[f"figures/{name}.svg"] = plot.png(), plot.svg()
    contents["errors.csv"] = _csv(all_errors(results, test_labels))
    contents["README.txt"] = _readme(results, tables, profile).encode("utf-8")
    return [write_atomic(folder / name, content) for name, content in contents.items()]


def all_errors(results: Results, test_labels: TestLabels) -> pd.DataFrame:
    """The errors of all languages: `evidence.ERROR_COLUMNS`."""
    found = [
        errors(code, with_test_labels(judged_posts(item), test_labels.get(code)))
        for code, item in results.present.items()
    ]
    return pd.concat(found, ignore_index=True)


def _csv(frame: pd.DataFrame) -> bytes:
    """UTF-8 CSV with six decimals. All text is quoted, so that line breaks in it survive."""
    rounded = frame.round(6)
    return rounded.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).encode("utf-8")


def _latex(frame: pd.DataFrame) -> bytes:
    decimals = "%.4f" if "difference" in frame else "%.3f"
    return frame.to_latex(index=False, escape=True, na_rep="--", float_format=decimals).encode("utf-8")


def _readme(results: Results, tables: dict[str, ReportTable], profile: Profile) -> str:
    text: str = template("export_readme.txt").render(
        profile=profile,
        version=__version__,
        present=[english_name(code) for code in results.present],
        absent=[(english_name(code), reason) for code, reason in results.absent.items()],
        tables=tables,
    )
    return text


def report_tables(evidence: list[LanguageEvidence], reference: dict[str, Reference]) -> dict[str, ReportTable]:
    """The tables by name. One without rows is left out."""
    labels = [(item, label) for item in evidence for label in item.labels]
    synthetic = [(item.language, line) for item in evidence for line in item.funnel]
    types = [(item.language, line) for item in evidence for line in item.type_funnel]
    agreed = [(item.language, one) for item in evidence for one in item.agreements]
    tables = {
        "summary": _table("Means over the languages", _SUMMARY, _summary(evidence).items()),
        "scores": _table("Macro-F1 by language", _scores(reference), evidence),
        "shift": _table("Difference between train and test posts", _SHIFT, evidence),
        "decisions": _table("How each language is decided", _DECISIONS, labels),
        **{
            name: _table(title, _ABLATION, ablations([getattr(label.decision, field) for _, label in labels]))
            for name, (title, field) in _PARTS.items()
        },
        "label_needs": _table("Where labels would help most", _LABEL_NEEDS, label_needs(evidence)),
        "synthetic_posts": _table("Synthetic posts by the stage of curation that rejected them", _SYNTHETIC, synthetic),
        "synthetic_types": _table("Positive synthetic posts by the type asked for", _TYPES, types),
        "agreement": _table("Agreement of planned labels, judge and backbone", _AGREEMENT, agreed),
    }
    return {name: table for name, table in tables.items() if len(table.frame)}


def _summary(evidence: list[LanguageEvidence]) -> dict[str, float]:
    tuned = mean_dev_tuned(evidence)
    gains = (
        {"dev_tuned_gain_on_dev": tuned.gain_on_dev, "dev_tuned_gain_elsewhere": tuned.gain_elsewhere} if tuned else {}
    )
    return summary_row(evidence) | gains


def _scores(reference: dict[str, Reference]) -> Columns:
    def official(name: str) -> Callable[[LanguageEvidence], Any]:
        return lambda item: getattr(reference.get(item.language), name, None)

    others: Columns = [
        ("baseline", "official test macro-F1 of the organisers' baseline", official("baseline")),
        ("runner_up", "of the team in second place", official("runner_up")),
        ("winner", "of the team in first place", official("winner")),
        ("best", "of the best ranked team in this language", official("best")),
    ]
    return [
        *_LANGUAGE,
        ("macro_f1", "nested out-of-fold macro-F1", "out_of_fold.value"),
        ("macro_f1_low", "low end of its 95% interval", "out_of_fold.low"),
        ("macro_f1_high", "high end of its 95% interval", "out_of_fold.high"),
        ("dev", "macro-F1 on dev with the final threshold", lambda item: item.dev and item.dev.value),
        ("test", "macro-F1 on the labelled test posts with the final threshold", lambda i: i.test and i.test.value),
        ("gap", "macro-F1 on test (or dev, if it was not decided on) less out of fold", "gap"),
        *(others if reference else []),
        *(
            (f"{split}_posts", f"{split} posts", lambda item, split=split: item.posts.get(split, 0))
            for split in ("train", "dev", "test")
        ),
        ("positives", "share of positive labels among the labelled posts", "first.positives"),
    ]


def _table(title: str, columns: Columns, rows: Iterable[Any]) -> ReportTable:
    names = [name for name, _, _ in columns]
    readers = [attrgetter(read) if isinstance(read, str) else read for _, _, read in columns]
    frame = pd.DataFrame([[read(row) for read in readers] for row in rows], columns=names)
    return ReportTable(title, frame, {name: meaning for name, meaning, _ in columns})


def _members(label: LabelEvidence) -> str:
    return ", ".join(f"{member.name} {member.weight:.2f}" for member in label.decision.members if member.weight)
