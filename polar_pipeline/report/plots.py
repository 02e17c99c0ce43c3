"""Figures: SVG for the page, PNG for Dagster's metadata. Same data, same bytes; no global matplotlib state.

Colours are Okabe & Ito's (2008), which colour-blind readers can tell apart; marks differ in shape as well. Each SVG
brings a second palette for readers who prefer a dark page.
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

INK, GREY, GRID = "#1c2024", "#5d6770", "#dde2e6"
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
_DARK = {INK: "#e6e9ec", GREY: "#a2acb5", GRID: "#333c44", BLUE: "#5cb3e6", ORANGE: "#ff9a56", GREEN: "#35c79c"}
_STYLE: Any = {
    "svg.hashsalt": "polar_pipeline",
    "svg.fonttype": "none",  # text stays text: small, searchable, in the reader's own font
    "font.family": "sans-serif",
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": GREY,
    "axes.facecolor": "none",
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
_SMALL = (2.7, 2.0)  # inches of one small multiple
_FRAME = (0.155, 0.2, 0.8, 0.69)  # of its axes: the same in every language, so that figures can be compared
_MARKS = {  # of the reference figures: name in the legend, marker, colour
    "baseline": ("baseline, official test", "|", GREY),
    "psk": ("PSK, official test", "^", ORANGE),
    "winner": ("winner, official test", "D", GREEN),
}


def curve_svg(evidence: LanguageEvidence) -> str:
    """Macro-F1 at every threshold, with the chosen threshold and its spread."""
    figure, (axes,) = _small_multiples(1)
    _draw_curve(axes, evidence.decision, evidence.curve)
    return _svg(figure)


def reliability_svg(evidence: LanguageEvidence) -> str:
    """Share of positives by probability."""
    figure, (axes,) = _small_multiples(1)
    _draw_reliability(axes, evidence.diagram)
    return _svg(figure)


def decision_png(decision: Decision, labels: Ints, probabilities: Floats) -> str:
    """Both of them, side by side, as a base64 PNG, from out-of-fold labels and probabilities."""
    figure, (left, right) = _small_multiples(2)
    _draw_curve(left, decision, thin(macro_f1_curve(labels, probabilities)))
    _draw_reliability(right, reliability(labels, probabilities))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def overview_svg(evidence: list[LanguageEvidence], reference: dict[str, Reference]) -> str:
    """Each language's out-of-fold macro-F1 with its interval, best first, beside the official test scores of others."""
    ordered = sorted(evidence, key=lambda item: (item.out_of_fold.value, item.language))
    places, estimates = range(len(ordered)), [item.out_of_fold for item in ordered]
    height = 0.9 + 0.235 * len(ordered)
    figure, (axes,) = _figure(9.4, height, [(0.1, 0.45 / height, 0.885, 1 - 0.85 / height)])
    for name, (label, mark, colour) in _MARKS.items():
        known = [(getattr(reference[e.language], name), at) for at, e in enumerate(ordered) if e.language in reference]
        if known:
            look = {"markersize": 9 if mark == "|" else 5, "markerfacecolor": "none", "markeredgewidth": 1.3}
            axes.plot(*zip(*known, strict=True), mark, color=colour, linestyle="none", label=label, **look)
    axes.hlines(places, [e.low for e in estimates], [e.high for e in estimates], color=BLUE, linewidth=2.2)
    axes.plot([e.value for e in estimates], places, "o", color=BLUE, markersize=5.5, label="out of fold, 95% interval")
    # a name may hold a dollar sign, which matplotlib would read as mathematics
    axes.set_yticks(list(places), [item.name for item in ordered], color=INK, parse_math=False)
    axes.set(ylim=(-0.7, len(ordered) - 0.3), xlabel="macro-F1")
    axes.spines["left"].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False, reverse=True)
    return _svg(figure)


def _draw_curve(axes: "Axes", decision: Decision, curve: Curve) -> None:
    chosen, spread = decision.threshold, decision.threshold_spread
    axes.axvspan(max(chosen - spread, 0.0), min(chosen + spread, 1.0), color=ORANGE, alpha=0.22, linewidth=0)
    axes.plot(curve.thresholds, curve.values, color=BLUE, linewidth=1.6)
    axes.axvline(chosen, color=ORANGE, linewidth=1.3)
    axes.annotate(f"{chosen:.3f}", (chosen, 1.0), (0, 3), textcoords="offset points", ha="center", color=ORANGE)
    # one scale for all languages; a curve's best is never below 1/3, which one class alone reaches
    axes.set(xlim=(0, 1), ylim=(0.3, 1), xlabel="threshold", ylabel="macro-F1")


def _draw_reliability(axes: "Axes", diagram: Reliability) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    axes.plot(diagram.mean_probability, diagram.share_positive, color=GREEN, linewidth=1)
    sizes = 8 + 90 * diagram.posts / max(int(diagram.posts.max()), 1)
    axes.scatter(diagram.mean_probability, diagram.share_positive, s=sizes, color=GREEN, linewidth=0, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability", ylabel="share positive")


def _small_multiples(count: int) -> "tuple[Figure, list[Axes]]":
    left, bottom, width, height = _FRAME
    frames = [((left + place) / count, bottom, width / count, height) for place in range(count)]
    return _figure(count * _SMALL[0], _SMALL[1], frames)


def _figure(
    width: float, height: float, frames: list[tuple[float, float, float, float]]
) -> "tuple[Figure, list[Axes]]":
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        return figure, [figure.add_axes(frame) for frame in frames]


def _svg(figure: "Figure") -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return _with_dark_palette(text[text.index("<svg") :])  # without XML declaration and doctype


def _with_dark_palette(svg: str) -> str:
    """Every colour becomes a CSS variable, which has a second value for dark pages."""
    for colour in _DARK:
        svg = svg.replace(colour, f"var(--c{colour[1:]})")
    light = ";".join(f"--c{colour[1:]}:{colour}" for colour in _DARK)
    dark = ";".join(f"--c{colour[1:]}:{other}" for colour, other in _DARK.items())
    end = svg.index(">") + 1
    return f"{svg[:end]}<style>svg{{{light}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>{svg[end:]}"
