"""The page: complete, self-contained, escaped, and the same bytes for the same evidence."""

import dataclasses
import math
import re
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest

from polar_pipeline.curation.agreement import Agreement
from polar_pipeline.curation.diversity import Diversity
from polar_pipeline.decision.record import Estimate, Excluded
from polar_pipeline.metrics.intervals import mean_interval
from polar_pipeline.report.page import render_report
from polar_pipeline.report.records import LanguageEvidence
from polar_pipeline.report.summary import summary_row
from polar_pipeline.task.card import load_card
from polar_pipeline_tests.report.made import PROFILE, Findings, evidence

CARD = load_card("polar")


def relabelled(item: LanguageEvidence, **changes: Any) -> LanguageEvidence:
    """The same with changes to what is known of its label."""
    return dataclasses.replace(item, labels=(item.first._replace(**changes),))


class Page(HTMLParser):
    """Text, tags and addresses of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "action", "srcset")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_shows_every_language_with_its_numbers_and_the_mean() -> None:
    both = [evidence("deu"), evidence("swa", seed=1)]
    page = Page(render_report(both, {}, CARD, PROFILE)).text
    assert page.index("German") < page.index("Swahili")
    for item in both:
        estimate = item.out_of_fold
        assert f"{estimate.value:.3f}" in page and f"{estimate.low:.3f}–{estimate.high:.3f}" in page
    mean = mean_interval([item.out_of_fold.value for item in both], [item.resamples for item in both])
    assert mean.low < mean.value < mean.high
    assert f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]" in " ".join(page.split())
    assert "baseline scored 0.714" in page  # the mean of 0.6714 and 0.7571
    assert "on test" not in page.split("Threshold and calibration")[1].split("German")[0]


def test_another_task_is_not_held_against_the_leaderboard_of_this_one() -> None:
    profile = PROFILE.model_copy(update={"task": "own/card.yaml"})
    page = Page(render_report([evidence("deu"), evidence("swa", seed=1)], {}, CARD, profile)).text
    assert "baseline scored" not in page and "the winner" not in page


def test_test_scores_are_shown_where_there_are_labels() -> None:
    labels = pd.Series([0, 1] * 30, index=[f"deu_{i}" for i in range(220, 280)], dtype="Int8")
    item = evidence("deu", test_labels=labels)
    assert item.test is not None
    page = Page(render_report([item, evidence("swa")], {}, CARD, PROFILE)).text
    assert f"{item.test.value:.3f}" in page.split("Scores by language")[1].split("German")[1].split("Swahili")[0]


def test_it_loads_nothing_and_runs_nothing() -> None:
    html = render_report([evidence("deu")], {}, CARD, PROFILE)
    page = Page(html)
    assert all(address.startswith(("data:image/svg+xml;base64,", "#")) for address in page.addresses)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "default-src 'none'" in html
    assert not re.search(r"url\(|@import", html)


def test_interval_bars_are_drawn_and_need_no_background_to_be_printed() -> None:
    items = [evidence("deu"), evidence("swa", seed=1)]
    html = render_report(items, {}, CARD, PROFILE)
    bars = re.findall(r'<svg class="bar".*?</svg>', html)
    assert len(bars) == len(items) + 1  # and the mean
    low = min(math.floor(10 * min(item.out_of_fold.low for item in items)) / 10, 0.9)
    for item, bar in zip(items, bars, strict=False):
        (left, width), (line, _) = re.findall(r'<rect x="([\d.]+)".*? width="([\d.]+)"', bar)
        ends = [100 * (value - low) / (1 - low) for value in (item.out_of_fold.low, item.out_of_fold.high)]
        assert [float(left), float(left) + float(width)] == pytest.approx(ends, abs=0.2)
        assert float(line) + 1 == pytest.approx(100 * (item.out_of_fold.value - low) / (1 - low), abs=0.1)
    assert "gradient" not in html and "background-image" not in html


def test_no_table_can_widen_the_page() -> None:
    html = render_report([evidence("deu")], {}, CARD, PROFILE)
    assert html.count("<table") == len(re.findall(r'<div class="wide"[^>]*>\s*<table', html))
    assert re.search(r"\.wide \{[^}]*overflow-x: auto", html)


def test_what_comes_from_outside_is_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    card = CARD.model_copy(update={"title": hostile})
    html = render_report([evidence("deu")], {"eng": hostile, "swa": hostile}, card, PROFILE)
    assert "<script>" not in html and "<b>made</b>" not in html
    assert "English, Swahili: <script>alert(1)</script>" in Page(html).text


def test_same_evidence_same_bytes_in_any_order() -> None:
    first = render_report([evidence("deu"), evidence("swa")], {}, CARD, PROFILE)
    assert first == render_report([evidence("swa"), evidence("deu")], {}, CARD, PROFILE)


def test_made_up_posts_are_called_so_and_compared_with_nothing() -> None:
    profile = PROFILE.model_copy(update={"data": "bundled"})
    page = Page(render_report([evidence("deu")], {}, CARD, profile)).text
    assert "The posts are made up." in page and "PSK" not in page


def test_a_shifted_language_is_flagged() -> None:
    page = Page(render_report([evidence("deu")], {}, CARD, PROFILE)).text
    assert "0.700shifted" in "".join(page.split())
    calm = dataclasses.replace(evidence("deu"), audit=Findings(shift_auc=0.5))
    assert "May not hold on test" in page
    assert "May not hold on test" not in Page(render_report([calm], {}, CARD, PROFILE)).text


def test_the_summary_is_for_people_and_mlflow_alike() -> None:
    summary = summary_row([evidence("deu"), evidence("swa", seed=1)])
    assert set(summary) == {
        "languages", "macro_f1", "macro_f1_low", "macro_f1_high", "macro_f1_dev", "macro_f1_observed",
        "generalisation_gap", "calibration_error",
    }  # fmt: skip
    assert summary["languages"] == 2
    assert summary["macro_f1"] == pytest.approx(
        (evidence("deu").out_of_fold.value + evidence("swa", seed=1).out_of_fold.value) / 2
    )


def test_models_that_were_left_out_are_named_with_the_reason() -> None:
    broken = Excluded(backbone="b<i>g", head="types", seed=111, reason="the final model's logits are <flat>")
    items = []
    for code in ("deu", "swa"):
        item = evidence(code)
        items.append(relabelled(item, decision=item.first.decision.model_copy(update={"excluded": (broken,)})))
    html = render_report(items, {}, CARD, PROFILE)
    assert "<flat>" not in html and "b<i>g" not in html
    page = " ".join(Page(html).text.split())
    assert "Left out: b<i>g.types, seed 111, in all languages: the final model's logits are <flat> (German)." in page


def test_mistakes_are_shown_escaped_and_can_be_switched_off() -> None:
    item = evidence("deu")
    assert item.first.mistakes
    html = render_report([item], {}, CARD, PROFILE)
    assert "<i>post</i>" not in html and item.first.mistakes[0].text in Page(html).text
    none = relabelled(item, mistakes=())
    assert "Most confident errors" not in Page(render_report([none], {}, CARD, PROFILE)).text


def test_a_score_far_below_the_expected_one_is_flagged() -> None:
    item = evidence("deu")
    low = Estimate(value=0.3, low=0.2, high=0.4, posts=50)
    bad = dataclasses.replace(item, dev=low)
    assert bad.surprising and bad.gap == pytest.approx(0.3 - item.out_of_fold.value)
    assert "German scores lower than expected: 0.300" in " ".join(
        Page(render_report([bad], {}, CARD, PROFILE)).text.split()
    )
    assert "lower than expected" not in Page(render_report([item], {}, CARD, PROFILE)).text


def test_whatever_looks_at_test_is_called_transductive() -> None:
    item = evidence("deu")
    matched = relabelled(item, decision=item.first.decision.model_copy(update={"shift_response": "rate_matching"}))
    page = " ".join(Page(render_report([matched], {}, CARD, PROFILE)).text.split())
    assert "Transductive: German is decided with a look at the unlabelled test posts" in page
    assert "rate matching (transductive)" in page
    off = PROFILE.model_copy(update={"decision": PROFILE.decision.model_copy(update={"transductive": False})})
    page = Page(render_report([item], {}, CARD, off)).text
    assert "No decision looks at a test post" in page and "Transductive:" not in page


def test_the_funnel_of_synthetic_posts_is_shown_where_there_are_any() -> None:
    item = evidence("deu")
    assert "synthetic posts" not in Page(render_report([item], {}, CARD, PROFILE)).text
    line = {"source": "<direct>", "label": 1, "made": 9, "meta": 2, "kept": 7}
    pair = {"label": 0, "real": "<b>one</b>", "synthetic": "<script>x</script>", "source": "direct", "stage": "meta"}
    varied = {"real": Diversity(9, 0.5, 0.75, 0.125), "synthetic": Diversity(9, 0.25, 0.5, 0.875)}
    made = dataclasses.replace(item, funnel=(line,), diversity=varied, gallery=(pair,))
    plain = Page(render_report([made], {}, CARD, PROFILE)).text
    assert "Which types were asked for" not in plain and "Can their labels be believed" not in plain
    agreed = (
        Agreement("synthetic", "plan", "judge", 9, 2 / 3, 0.25),
        Agreement("real", "label", "backbone", 8, 1, None),
    )
    made = dataclasses.replace(
        made, type_funnel=({"type": "<political>", "asked": 8, "made": 7, "kept": 5},), agreements=agreed
    )
    html = render_report([made], {}, CARD, PROFILE)
    assert "<political>" not in html and "<direct>" not in html and "<script>x" not in html and "<b>one" not in html
    words = Page(html).text.split("What became of the synthetic posts")[1].split("Threshold and calibration")[0].split()
    text = "".join(words)
    assert "deu<direct>polarized927" in text and "deu<political>875" in text
    assert "deusyntheticplanandjudge966.7%0.250" in text and "deureallabelandbackbone8100" in text
    assert "real90.5000.7500.125" in text and "synthetic90.2500.5000.875" in text
    assert text.endswith("notpolarized<b>one</b><script>x</script>directmeta")
