"""The report: evidence of all languages as one self-contained HTML page. Same evidence, same bytes.

Everything is escaped by the template engine; nothing from data is marked safe, and the page loads nothing from elsewhere.
The words are in page.html, one language's card in language.html, the look in page.css.
"""

import base64
import math
from importlib import metadata
from typing import Any, NamedTuple

from polar_pipeline import __version__
from polar_pipeline.curation.curate import STAGES
from polar_pipeline.decision.shift import NONE
from polar_pipeline.metrics.intervals import Interval, mean_interval
from polar_pipeline.report.evidence import LanguageEvidence, english_name
from polar_pipeline.report.parts import WANTED, parts, place, wanted_labels
from polar_pipeline.report.plots import curve_svg, overview_svg, reliability_svg
from polar_pipeline.report.reference import Reference, load_reference
from polar_pipeline.report.scrutiny import DevTuned
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.settings.profile import Profile
from polar_pipeline.task.card import TaskCard

PACKAGES = ("dagster", "mlflow", "numpy", "pandas", "scikit-learn", "torch")


class Row(NamedTuple):
    """One language on the page."""

    evidence: LanguageEvidence
    reference: Reference | None
    shifted: bool
    curve: str  # both figures as data addresses
    reliability: str


class Scale(NamedTuple):
    """The axis of the small interval bars in the table: from `low` to `high` macro-F1."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Where a macro-F1 stands on the bar, in percent."""
        return round(100 * (value - self.low) / (self.high - self.low), 1)


def render_report(evidence: list[LanguageEvidence], absent: dict[str, str], card: TaskCard, profile: Profile) -> str:
    """The page. `absent` gives the reason for each language that is not in `evidence`, which must not be empty."""
    made_up = profile.data == "bundled"
    # the figures are those of the task that comes with the package, on its official data
    reference = {} if made_up or profile.task != Profile.model_fields["task"].default else load_reference()
    ordered = sorted(evidence, key=lambda item: (item.name, item.language))
    rows = [_row(item, reference.get(item.language), profile.report.shift_auc_warning) for item in ordered]
    summary, means = summary_row(ordered), _reference_means(rows)
    page: str = _template().render(
        rows=rows,
        summary=summary,
        place=place(summary["macro_f1"], means) if means and len(rows) == len(reference) else "",
        strategies=parts([item.decision.candidates for item in ordered]),
        without=parts([item.decision.without for item in ordered]),
        rules=parts([item.decision.rules for item in ordered]),
        dev_tuned=_dev_tuned(ordered),
        excluded=_excluded(ordered),
        responses=[item for item in ordered if item.decision.shift_response != NONE],
        wanted=wanted_labels(ordered),
        wanted_width=WANTED,
        judged=len(_judged(ordered)),
        made=[row for row in rows if row.evidence.funnel],
        stages=[stage for stage in STAGES if any(stage in line for item in ordered for line in item.funnel)],
        observed="test" if any(item.test for item in ordered) else "dev",
        measured={name: sum(getattr(item, name) is not None for item in ordered) for name in ("dev", "test")},
        means=means,
        compared=sum(row.reference is not None for row in rows),
        overview=_image(overview_svg(ordered, reference)),
        by_shift=sorted(rows, key=lambda row: (-row.evidence.shift_auc, row.evidence.name)),
        scale=_scale(ordered),
        absent=_by_reason(absent),
        card=card,
        profile=profile,
        made_up=made_up,
        untrained=[entry.name for entry in profile.backbones if isinstance(entry, LoraSettings) and entry.untrained],
        versions={"polar_pipeline": __version__} | {name: metadata.version(name) for name in PACKAGES},
    )
    return page


def summary_row(evidence: list[LanguageEvidence]) -> dict[str, float]:
    """Means over the languages: out-of-fold macro-F1 with its interval, dev and test where there are labels, and the
    gap between what was expected and what dev or test show.
    """
    mean = _mean(evidence)
    summary = {"languages": len(evidence), "macro_f1": mean.value, "macro_f1_low": mean.low, "macro_f1_high": mean.high}
    for name in ("dev", "test"):
        values = [estimate.value for item in evidence if (estimate := getattr(item, name))]
        if values:
            summary[f"macro_f1_{name}"] = sum(values) / len(values)
    judged = _judged(evidence)
    if judged:
        observed, expected = (sum(column) / len(judged) for column in zip(*judged, strict=True))
        summary |= {"macro_f1_observed": observed, "generalisation_gap": observed - expected}
    summary["calibration_error"] = sum(item.decision.calibration_error for item in evidence) / len(evidence)
    return summary


def _judged(evidence: list[LanguageEvidence]) -> list[tuple[float, float]]:
    """Observed and expected macro-F1 of the languages that have both, all on one split: test where any has labels of it."""
    on_test = [(item.test.value, item.out_of_fold.value) for item in evidence if item.test]
    return on_test or [(item.observed.value, item.out_of_fold.value) for item in evidence if item.observed]


def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("polar_pipeline.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _mean(evidence: list[LanguageEvidence]) -> Interval:
    return mean_interval([item.out_of_fold.value for item in evidence], [item.resamples for item in evidence])


def _reference_means(rows: list[Row]) -> Reference | None:
    known = [row.reference for row in rows if row.reference]
    return Reference(*(sum(column) / len(known) for column in zip(*known, strict=True))) if known else None


def _dev_tuned(evidence: list[LanguageEvidence]) -> DevTuned | None:
    """The mean over the languages that have labelled dev posts."""
    known = [item.dev_tuned for item in evidence if item.dev_tuned]
    return DevTuned(*(sum(column) / len(known) for column in zip(*known, strict=True))) if known else None


def _excluded(evidence: list[LanguageEvidence]) -> list[tuple[str, int, list[tuple[str, str]]]]:
    """Each model that was left out anywhere: backbone, seed, and language and reason wherever it was."""
    found: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for item in evidence:
        for model in item.decision.excluded:
            found.setdefault((model.backbone, model.seed), []).append((item.name, model.reason))
    return [(backbone, seed, found[backbone, seed]) for backbone, seed in sorted(found)]


def _by_reason(absent: dict[str, str]) -> list[tuple[str, list[str]]]:
    """English names of absent languages; those that lack for the same reason stand together."""
    return [
        (reason, sorted(english_name(code) for code in absent if absent[code] == reason))
        for reason in sorted(set(absent.values()))
    ]


def _scale(evidence: list[LanguageEvidence]) -> Scale:
    """From the tenth below the lowest interval to 1: intervals are narrow, an axis from 0 would hide them."""
    lowest = min(item.out_of_fold.low for item in evidence)
    return Scale(min(math.floor(lowest * 10) / 10, 0.9), 1.0)


def _row(item: LanguageEvidence, reference: Reference | None, shift_warning: float) -> Row:
    shifted = item.shift_auc > shift_warning
    return Row(item, reference, shifted, _image(curve_svg(item)), _image(reliability_svg(item)))


def _image(svg: str) -> str:
    """An SVG as a data address: inside an <img> it can run nothing, and its ids do not clash with other figures'."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")
