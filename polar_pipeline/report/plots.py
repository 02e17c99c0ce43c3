"""Figures: SVG for the page, PNG for Dagster's metadata. Same data, same bytes; no global matplotlib state.

Colours are Okabe & Ito's (2008), which colour-blind readers can tell apart.
"""

import base64
import io
from typing import TYPE_CHECKING, Any

from polar_pipeline.decision.record import Decision
from polar_pipeline.metrics.scores import Curve, Floats, Ints, Reliability, macro_f1_curve, reliability
from polar_pipeline.report.evidence import LanguageEvidence, thin
from polar_pipeline.report.reference import Reference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
_STYLE: Any = {
    "svg.hashsalt": "polar_pipeline",
    "svg.fonttype": "none",  # text stays text: small, searchable, in the reader's own font
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
}


def language_svg(evidence: LanguageEvidence) -> str:
    """Threshold curve and reliability diagram of one language, side by side."""
    return _svg(_pair(evidence.decision, evidence.curve, evidence.diagram))


def decision_png(decision: Decision, labels: Ints, probabilities: Floats) -> str:
    """The same picture as a base64 PNG, from out-of-fold labels and probabilities."""
    figure = _pair(decision, thin(macro_f1_curve(labels, probabilities)), reliability(labels, probabilities))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def overview_svg(evidence: list[LanguageEvidence], reference: dict[str, Reference]) -> str:
    """Each language's out-of-fold macro-F1 with its interval, best first, beside the official test scores of others."""
    ordered = sorted(evidence, key=lambda item: (item.out_of_fold.value, item.language))
    places = range(len(ordered))
    estimates = [item.out_of_fold for item in ordered]
    figure, (axes,) = _figure(1, 10, 1.2 + 0.24 * len(ordered))
    axes.hlines(places, [e.low for e in estimates], [e.high for e in estimates], color=BLUE, linewidth=2)
    axes.plot([e.value for e in estimates], places, "o", color=BLUE, markersize=5, label="out of fold, 95% interval")
    for name, mark, colour in (("baseline", "|", GREY), ("psk", "x", ORANGE), ("winner", "+", GREEN)):
        known = [(getattr(reference[e.language], name), at) for at, e in enumerate(ordered) if e.language in reference]
        if known:
            label = f"{'PSK' if name == 'psk' else name}, official test"
            axes.plot(*zip(*known, strict=True), mark, color=colour, markersize=6, linestyle="none", label=label)
    axes.set_yticks(list(places), [item.language for item in ordered])
    axes.set_xlabel("macro-F1")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
    return _svg(figure)


def _pair(decision: Decision, curve: Curve, diagram: Reliability) -> "Figure":
    figure, (left, right) = _figure(2, 6.4, 2.5)
    _draw_curve(left, decision, curve)
    _draw_reliability(right, diagram)
    return figure


def _draw_curve(axes: "Axes", decision: Decision, curve: Curve) -> None:
    low, high = decision.threshold - decision.threshold_spread, decision.threshold + decision.threshold_spread
    axes.axvspan(max(low, 0.0), min(high, 1.0), color=ORANGE, alpha=0.18, linewidth=0)
    axes.plot(curve.thresholds, curve.values, color=BLUE, linewidth=1.4)
    axes.axvline(decision.threshold, color=ORANGE, linewidth=1.4)
    axes.set(xlim=(0, 1), xlabel="threshold", ylabel="macro-F1", title="macro-F1 by threshold, out of fold")


def _draw_reliability(axes: "Axes", diagram: Reliability) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    sizes = 12 + 90 * diagram.posts / max(int(diagram.posts.max()), 1)
    axes.scatter(diagram.mean_probability, diagram.share_positive, s=sizes, color=GREEN, alpha=0.8, linewidth=0)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability", ylabel="share positive", title="reliability")


def _figure(columns: int, width: float, height: float) -> "tuple[Figure, list[Axes]]":
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, [figure.add_subplot(1, columns, place + 1) for place in range(columns)]


def _svg(figure: "Figure") -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]  # the XML declaration does not belong inside HTML
