"""Figures for the page, the export and Dagster's metadata. The same data gives the same bytes.

Colours are those of Okabe & Ito (2008), which colour-blind readers can tell apart; marks differ in shape too. An SVG
of the page has a second palette for readers who prefer a dark page. The global state of matplotlib is not touched.
"""

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from polar_pipeline.decision.record import Decision
from polar_pipeline.metrics.metric import Metric
from polar_pipeline.metrics.scores import Curve, Floats, Ints, Reliability, reliability, threshold_curve
from polar_pipeline.report.comparison import Reference
from polar_pipeline.report.evidence import thin
from polar_pipeline.report.records import LabelEvidence, LanguageEvidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Frame = tuple[float, float, float, float]  # of axes within a figure: left, bottom, width, height, as shares

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
_FRAME: Frame = (0.155, 0.2, 0.8, 0.69)  # the same in every language, so that figures can be compared
_MARKS = {  # of the reference figures: name in the legend, marker, colour
    "baseline": ("baseline, official test", "|", GREY),
    "runner_up": ("second place, official test", "^", ORANGE),
    "winner": ("winner, official test", "D", GREEN),
}


class Plot(NamedTuple):
    """A figure that can be saved in several formats. `draw` fills one axes per frame."""

    size: tuple[float, float]  # inches
    frames: list[Frame]
    draw: Callable[..., None]

    def svg(self) -> bytes:
        """A complete SVG file, without a date."""
        return self._save(format="svg", transparent=True, metadata={"Date": None, "Creator": None})

    def png(self, dpi: int = 200) -> bytes:
        """A PNG file on white."""
        return self._save(format="png", dpi=dpi, metadata={"Software": None})

    def page_svg(self) -> str:
        """An SVG element for the page, in which every colour has a second value for dark pages."""
        text = self.svg().decode("utf-8")
        return _with_dark_palette(text[text.index("<svg") :])  # without XML declaration and doctype

    def _save(self, **options: Any) -> bytes:
        import matplotlib as mpl
        from matplotlib.figure import Figure

        buffer = io.BytesIO()
        with mpl.rc_context(_STYLE):  # around drawing and saving: artists read the style when they are made
            figure = Figure(figsize=self.size)
            self.draw(*(figure.add_axes(frame) for frame in self.frames))
            figure.savefig(buffer, **options)
        return buffer.getvalue()


def threshold_plot(evidence: LabelEvidence, metric: str) -> Plot:
    """The metric at every threshold, with the chosen threshold and its spread."""
    return Plot(_SMALL, [_FRAME], lambda axes: _draw_curve(axes, evidence.decision, evidence.curve, metric))


def reliability_plot(evidence: LabelEvidence) -> Plot:
    """Share of positives by probability."""
    return Plot(_SMALL, [_FRAME], lambda axes: _draw_reliability(axes, evidence.diagram))


def overview_plot(
    evidence: list[LanguageEvidence], reference: dict[str, Reference], metric: str, narrow: bool = False
) -> Plot:
    """Each language's out-of-fold figure with its interval, best first, beside official test scores.

    `narrow` is for phones: the legend stands in two columns, and text is larger in relation to the figure.
    """
    ordered = sorted(evidence, key=lambda item: (item.out_of_fold.value, item.language))
    width, left, top, columns = (3.7, 0.75, 0.6, 2) if narrow else (9.4, 0.94, 0.4, 4)
    bottom, rows = 0.45, 0.05 + 0.235 * len(ordered)  # inches, as are the others
    height = bottom + rows + top
    frame = (left / width, bottom / height, 1 - (left + 0.14) / width, rows / height)
    return Plot((width, height), [frame], lambda axes: _draw_overview(axes, ordered, reference, columns, metric))


def decision_png(decision: Decision, labels: Ints, probabilities: Floats, metric: Metric) -> str:
    """Threshold curve and reliability diagram side by side, of out-of-fold labels and probabilities. A base64 PNG."""

    def draw(left: "Axes", right: "Axes") -> None:
        curve = threshold_curve(labels, probabilities, metric.measure)
        _draw_curve(left, decision, thin(curve), metric.name)
        _draw_reliability(right, reliability(labels, probabilities))

    left, bottom, width, height = _FRAME
    frames = [((left + place) / 2, bottom, width / 2, height) for place in range(2)]
    content = Plot((2 * _SMALL[0], _SMALL[1]), frames, draw).png(dpi=110)
    return base64.b64encode(content).decode("ascii")


def confusion_png(decision: Decision, negative: str, positive: str) -> bytes:
    """The counts of the nested out-of-fold predictions: true labels as rows, predicted ones as columns."""

    def draw(axes: "Axes") -> None:
        counts = decision.confusion
        most = max(max(counts), 1)
        for place, count in enumerate(counts):  # true negatives, false positives, false negatives, true positives
            row, column = divmod(place, 2)
            axes.axvspan(column, column + 1, (1 - row) / 2, (2 - row) / 2, color=BLUE, alpha=0.1 + 0.5 * count / most)
            axes.text(column + 0.5, 1.5 - row, f"{count:,}", ha="center", va="center", fontsize=11)
        axes.set(xlim=(0, 2), ylim=(0, 2), xlabel="predicted", ylabel="true")
        axes.set_xticks((0.5, 1.5), (negative, positive), parse_math=False)
        axes.set_yticks((1.5, 0.5), (negative, positive), parse_math=False, rotation=90, va="center")
        axes.grid(False)

    return Plot(_SMALL, [_FRAME], draw).png(dpi=110)


def _draw_overview(
    axes: "Axes", ordered: list[LanguageEvidence], reference: dict[str, Reference], columns: int, metric: str
) -> None:
    places, estimates = range(len(ordered)), [item.out_of_fold for item in ordered]
    for name, (label, mark, colour) in _MARKS.items():
        known = [(getattr(reference[e.language], name), at) for at, e in enumerate(ordered) if e.language in reference]
        if known:
            look: Any = {"markersize": 9 if mark == "|" else 5, "markerfacecolor": "none", "markeredgewidth": 1.3}
            axes.plot(*zip(*known, strict=True), mark, color=colour, linestyle="none", label=label, **look)
    axes.hlines(places, [e.low for e in estimates], [e.high for e in estimates], color=BLUE, linewidth=2.2)
    axes.plot([e.value for e in estimates], places, "o", color=BLUE, markersize=5.5, label="out of fold, 95% interval")
    # a name may hold a dollar sign, which matplotlib would read as mathematics
    axes.set_yticks(list(places), [item.name for item in ordered], color=INK, parse_math=False)
    axes.set(ylim=(-0.7, len(ordered) - 0.3), xlabel=metric)
    axes.spines["left"].set_visible(False)
    middle = 0.5 if columns > 2 else 0.4
    axes.legend(loc="lower center", bbox_to_anchor=(middle, 1.0), ncols=columns, frameon=False, reverse=True)


def _draw_curve(axes: "Axes", decision: Decision, curve: Curve, metric: str) -> None:
    chosen, spread = decision.threshold, decision.threshold_spread
    axes.axvspan(max(chosen - spread, 0.0), min(chosen + spread, 1.0), color=ORANGE, alpha=0.22, linewidth=0)
    axes.plot(curve.thresholds, curve.values, color=BLUE, linewidth=1.6)
    axes.axvline(chosen, color=ORANGE, linewidth=1.3)
    axes.annotate(f"{chosen:.3f}", (chosen, 1.0), (0, 3), textcoords="offset points", ha="center", color=ORANGE)
    # one scale for all languages; the best macro-F1 is never below 1/3, which one class alone reaches
    axes.set(xlim=(0, 1), ylim=(0.3 if curve.values.max() >= 1 / 3 else 0.0, 1), xlabel="threshold", ylabel=metric)
    axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))


def _draw_reliability(axes: "Axes", diagram: Reliability) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    axes.plot(diagram.mean_probability, diagram.share_positive, color=GREEN, linewidth=1)
    sizes = 8 + 90 * diagram.posts / max(int(diagram.posts.max()), 1)
    axes.scatter(diagram.mean_probability, diagram.share_positive, s=sizes, color=GREEN, linewidth=0, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability", ylabel="share positive")
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks((0, 0.5, 1), ("0", "0.5", "1"))


def _with_dark_palette(svg: str) -> str:
    """Every colour becomes a CSS variable, which has a second value for dark pages."""
    for colour in _DARK:
        svg = svg.replace(colour, f"var(--c{colour[1:]})")
    light = ";".join(f"--c{colour[1:]}:{colour}" for colour in _DARK)
    dark = ";".join(f"--c{colour[1:]}:{other}" for colour, other in _DARK.items())
    end = svg.index(">") + 1
    return f"{svg[:end]}<style>svg{{{light}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>{svg[end:]}"
