"""The report: evidence of all languages as one self-contained HTML page. The same evidence gives the same bytes.

The template engine escapes everything; nothing from data is marked safe, and the page loads nothing and runs no script.
The words are in `templates/`: page.html, decisions.html, language.html (one language's card) and page.css.
"""

import base64
import math
from importlib import metadata
from typing import Any, NamedTuple

from polar_pipeline import __version__
from polar_pipeline.curation.curate import STAGES
from polar_pipeline.decision.decide import NONE
from polar_pipeline.report.comparison import LEADERS, Reference, comparable_reference
from polar_pipeline.report.plots import Plot, overview_plot, reliability_plot, threshold_plot
from polar_pipeline.report.records import LabelEvidence, LanguageEvidence, english_name
from polar_pipeline.report.summary import (
    TARGET_HALF_WIDTH,
    ablations,
    excluded_models,
    label_needs,
    leaderboard_position,
    mean_dev_tuned,
    observed_and_expected,
    reference_means,
    summary_row,
)
from polar_pipeline.settings.backbones import PretrainedSettings
from polar_pipeline.settings.profile import Profile
from polar_pipeline.task.card import TaskCard

PACKAGES = ("dagster", "mlflow", "numpy", "pandas", "scikit-learn", "torch")


class Row(NamedTuple):
    """One language on the page."""

    evidence: LanguageEvidence
    reference: Reference | None
    shifted: bool
    figures: list[tuple[LabelEvidence, str, str]]  # of each label: curve and reliability as data addresses


class Scale(NamedTuple):
    """The axis of the small interval bars in the table: from `low` to `high` macro-F1."""

    low: float
    high: float

    def position(self, value: float) -> float:
        """Where a macro-F1 stands on the bar, in percent."""
        return round(100 * (value - self.low) / (self.high - self.low), 1)


def render_report(evidence: list[LanguageEvidence], absent: dict[str, str], card: TaskCard, profile: Profile) -> str:
    """The page. `absent` gives the reason for each language that is not in `evidence`, which must not be empty."""
    reference = comparable_reference(profile, card)
    ordered = sorted(evidence, key=lambda item: (item.name, item.language))
    rows = [_row(item, reference.get(item.language), profile, card) for item in ordered]
    summary, means = summary_row(ordered), reference_means([row.reference for row in rows if row.reference])
    labels = [label for item in ordered for label in item.labels]
    page: str = template("page.html").render(
        rows=rows,
        summary=summary,
        position=leaderboard_position(summary["macro_f1"], means) if means and len(rows) == len(reference) else "",
        strategies=ablations([label.decision.candidates for label in labels]),
        without=ablations([label.decision.without for label in labels]),
        rules=ablations([label.decision.rules for label in labels]),
        dev_tuned=mean_dev_tuned(ordered),
        excluded=excluded_models(ordered),
        responses=[item for item in ordered if item.shift_response != NONE],
        needs=label_needs(ordered),
        target_half_width=TARGET_HALF_WIDTH,
        judged=len(observed_and_expected(ordered)),
        synthesized=[row for row in rows if row.evidence.funnel],
        stages=[stage for stage in STAGES if any(stage in line for item in ordered for line in item.funnel)],
        observed="test" if any(item.test for item in ordered) else "dev",
        measured={name: sum(getattr(item, name) is not None for item in ordered) for name in ("dev", "test")},
        means=means,
        leaders=LEADERS.get(card.name, ("", "")),
        compared=sum(row.reference is not None for row in rows),
        overview=_image(overview_plot(ordered, reference, card.metric)),
        narrow_overview=_image(overview_plot(ordered, reference, card.metric, narrow=True)),
        by_shift=sorted(rows, key=lambda row: (-(row.evidence.audit.shift_auc or 0), row.evidence.name)),
        scale=_scale(ordered),
        absent=_by_reason(absent),
        card=card,
        profile=profile,
        made_up=profile.data == "bundled",
        untrained=[
            entry.name for entry in profile.backbones if isinstance(entry, PretrainedSettings) and entry.untrained
        ],
        versions={"polar_pipeline": __version__} | {name: metadata.version(name) for name in PACKAGES},
    )
    return page


def template(name: str) -> Any:
    """A template of this package. Values are escaped in HTML and stay as they are in plain text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("polar_pipeline.report", "templates"),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _by_reason(absent: dict[str, str]) -> list[tuple[str, list[str]]]:
    """The reasons why languages are absent, each with the English names of its languages."""
    return [
        (reason, sorted(english_name(code) for code in absent if absent[code] == reason))
        for reason in sorted(set(absent.values()))
    ]


def _scale(evidence: list[LanguageEvidence]) -> Scale:
    """From the tenth below the lowest interval to 1: intervals are narrow, an axis from 0 would hide them."""
    lowest = min(item.out_of_fold.low for item in evidence)
    return Scale(min(math.floor(lowest * 10) / 10, 0.9), 1.0)


def _row(item: LanguageEvidence, reference: Reference | None, profile: Profile, card: TaskCard) -> Row:
    shifted = (item.audit.shift_auc or 0) > profile.report.shift_auc_warning
    figures = [
        (label, _image(threshold_plot(label, card.metric)), _image(reliability_plot(label))) for label in item.labels
    ]
    return Row(item, reference, shifted, figures)


def _image(plot: Plot) -> str:
    """A plot as a data address: inside an <img> it can run nothing, and its ids do not clash with other figures'."""
    return "data:image/svg+xml;base64," + base64.b64encode(plot.page_svg().encode("utf-8")).decode("ascii")
