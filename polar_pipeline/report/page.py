"""The report: evidence of all languages as one self-contained HTML page. Same evidence, same bytes.

Everything is escaped by the template engine; nothing from data is marked safe, and the page loads nothing from elsewhere.
"""

import base64
from importlib import metadata

from polar_pipeline import __version__
from polar_pipeline.metrics.intervals import Interval, mean_interval
from polar_pipeline.report.evidence import LanguageEvidence
from polar_pipeline.report.plots import language_svg, overview_svg
from polar_pipeline.report.reference import Reference, load_reference
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import language
from polar_pipeline.task.profile import Profile

PACKAGES = ("dagster", "mlflow", "numpy", "pandas", "scikit-learn", "torch")


def render_report(evidence: list[LanguageEvidence], absent: dict[str, str], card: TaskCard, profile: Profile) -> str:
    """The page. `absent` gives the reason for each language that is not in `evidence`, which must not be empty."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made_up = profile.data == "bundled"
    reference = {} if made_up else load_reference()
    environment = Environment(
        loader=PackageLoader("polar_pipeline.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ordered = sorted(evidence, key=lambda item: item.language)
    return environment.get_template("page.html").render(
        rows=[_row(item, reference) for item in ordered],
        summary=summary_row(ordered),
        means=_reference_means(ordered, reference),
        overview=_image(overview_svg(ordered, reference)),
        shift=sorted(ordered, key=lambda item: -item.shift_auc),
        with_test=any(item.test for item in ordered),
        absent=_by_reason(absent),
        card=card,
        profile=profile,
        made_up=made_up,
        names={item.language: language(item.language).name for item in ordered},
        bar=_bar,
        versions={"polar_pipeline": __version__} | {name: metadata.version(name) for name in PACKAGES},
    )


def summary_row(evidence: list[LanguageEvidence]) -> dict[str, float]:
    """Means over the languages: out-of-fold macro-F1 with its interval, and dev and test where there are labels."""
    mean = _mean(evidence)
    summary = {"languages": len(evidence), "macro_f1": mean.value, "macro_f1_low": mean.low, "macro_f1_high": mean.high}
    for name in ("dev", "test"):
        values = [estimate.value for item in evidence if (estimate := getattr(item, name))]
        if values:
            summary[f"macro_f1_{name}"] = sum(values) / len(values)
    return summary


def _mean(evidence: list[LanguageEvidence]) -> Interval:
    return mean_interval([item.out_of_fold.value for item in evidence], [item.resamples for item in evidence])


def _reference_means(evidence: list[LanguageEvidence], reference: dict[str, Reference]) -> Reference | None:
    known = [reference[item.language] for item in evidence if item.language in reference]
    return Reference(*(sum(column) / len(known) for column in zip(*known, strict=True))) if known else None


def _by_reason(absent: dict[str, str]) -> list[tuple[str, list[str]]]:
    """Languages that lack for the same reason stand together."""
    return [
        (reason, [code for code in sorted(absent) if absent[code] == reason]) for reason in sorted(set(absent.values()))
    ]


def _row(item: LanguageEvidence, reference: dict[str, Reference]) -> dict[str, object]:
    return {
        "evidence": item,
        "language": language(item.language),
        "reference": reference.get(item.language),
        "figure": _image(language_svg(item)),
    }


def _image(svg: str) -> str:
    """An SVG as a data address: inside an <img> it can run nothing, and its ids do not clash with other figures'."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")


def _bar(value: float) -> float:
    """Where a macro-F1 stands on the small bars, which go from 0.4 to 1, in percent."""
    return 100 * (min(max(value, 0.4), 1.0) - 0.4) / 0.6
