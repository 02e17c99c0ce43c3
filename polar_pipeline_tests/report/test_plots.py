"""Figures are well-formed, the same every time, and survive degenerate evidence."""

import base64
import xml.etree.ElementTree as ElementTree

import numpy as np

from polar_pipeline.report.plots import decision_png, language_svg, overview_svg
from polar_pipeline.report.reference import load_reference
from polar_pipeline_tests.report.made import evidence, tables


def test_figures_are_well_formed_and_the_same_every_time() -> None:
    item = evidence("deu")
    for draw in (lambda: language_svg(item), lambda: overview_svg([item, evidence("swa")], load_reference())):
        svg = draw()
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert svg == draw()


def test_the_overview_names_languages_and_only_the_marks_that_there_are() -> None:
    with_reference = overview_svg([evidence("deu")], load_reference())
    without = overview_svg([evidence("deu")], {})
    assert ">deu<" in with_reference and "PSK" in with_reference
    assert "PSK" not in without and "out of fold" in without


def test_the_picture_for_dagster_is_a_png_even_of_constant_scores() -> None:
    decision = tables("deu")[2]
    for probabilities in (np.full(10, 0.4), np.linspace(0, 1, 10)):
        image = base64.b64decode(decision_png(decision, np.array([0, 1] * 5), probabilities))
        assert image.startswith(b"\x89PNG")
