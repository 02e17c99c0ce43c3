"""Figures are well-formed, the same every time, and survive degenerate evidence."""

import base64
import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from polar_pipeline.metrics.metric import MACRO_F1
from polar_pipeline.report.comparison import load_reference
from polar_pipeline.report.plots import confusion_png, decision_png, overview_plot, reliability_plot, threshold_plot
from polar_pipeline_tests.report.made import evidence, tables


def test_figures_are_well_formed_and_the_same_every_time() -> None:
    item = evidence("deu")
    both = [item, evidence("swa")]
    for draw in (
        lambda: threshold_plot(item.first, "macro-F1"),
        lambda: reliability_plot(item.first),
        lambda: overview_plot(both, load_reference(), "macro-F1"),
        lambda: overview_plot(both, load_reference(), "macro-F1", narrow=True),
    ):
        for svg in (draw().page_svg(), draw().svg()):
            assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert draw().page_svg() == draw().page_svg()
        assert draw().svg() == draw().svg() and draw().png() == draw().png()
        assert b"<dc:date>" not in draw().svg() and b"var(--" not in draw().svg()


def test_the_overview_names_languages_and_only_the_marks_that_there_are() -> None:
    with_reference = overview_plot([evidence("deu")], load_reference(), "macro-F1").page_svg()
    without = overview_plot([evidence("deu")], {}, "macro-F1").page_svg()
    assert ">German<" in with_reference and "second place" in with_reference
    assert "second place" not in without and "out of fold" in without


def test_every_colour_has_a_second_one_for_dark_pages() -> None:
    svg = overview_plot([evidence("deu")], load_reference(), "macro-F1").page_svg()
    drawn = svg.split("</style>", 1)[1]
    used = set(re.findall(r"var\(--c([0-9a-f]{6})\)", drawn))
    assert used and all(svg.count(f"--c{colour}:") == 2 for colour in used)
    assert not re.findall(r"(?:fill|stroke): #(?!000000|ffffff)[0-9a-f]{6}", drawn)


def test_the_picture_for_dagster_is_a_png_even_of_constant_scores() -> None:
    decision = tables("deu")[2].first
    for probabilities in (np.full(10, 0.4), np.linspace(0, 1, 10)):
        image = base64.b64decode(decision_png(decision, np.array([0, 1] * 5), probabilities, MACRO_F1))
        assert image.startswith(b"\x89PNG")


def test_the_confusion_matrix_is_a_png_even_without_any_post_and_with_odd_names() -> None:
    decision = tables("deu")[2].first
    pictures = [
        confusion_png(decision.model_copy(update={"confusion": counts}), "no $x", "yes $y")
        for counts in ((0, 0, 0, 0), (5, 1, 2, 1234), (5, 2, 1, 1234))
    ]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures) and len(set(pictures)) == 3
