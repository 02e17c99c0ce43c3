"""Posts of a type, from a server that does as it is told: they arrive, and the judge drops exactly what it should."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from polar_pipeline.augmentation.gate import gate, with_labels
from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import REAL, read_posts
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.curation.agreement import agreements, judge_figures
from polar_pipeline.curation.curate import curate_by_profile, type_funnel
from polar_pipeline.curation.fold_leakage import fold_leaks, likely_parents
from polar_pipeline.settings.curation import CurationSettings
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.home import Home
from polar_pipeline.synthesis.generate import make_posts
from polar_pipeline.synthesis.plan import asked_types
from polar_pipeline_tests.conftest import polar
from polar_pipeline_tests.synthesis import made
from polar_pipeline_tests.synthesis.obedient import Written, obedient

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")


def said(text: str, written: Written | None) -> str:
    """A judge that believes every post but religious ones, says nothing of others, and is half sure of real ones."""
    if written is None:
        return "50%"
    if written.type == "other":
        return "hard to say"
    believed = 0.2 if written.type == "religious" else 0.9
    return f"{believed if written.label else 1 - believed:.2f}"


@pytest.mark.parametrize("by", ["random", "nearest"])
def test_typed_positives_arrive_and_the_judge_drops_exactly_what_it_does_not_believe(tmp_path: Path, by: str) -> None:
    posts = assign_folds(read_posts(bundled_folder(), "deu", made.CARD), Profile(name="x").folds, 0)
    home = Home(tmp_path)
    with obedient(said) as server:
        settings = made.settings(base_url=server.url, posts=240, examples_by=by)
        curation = CurationSettings(judge=True, judge_real_posts=20, near_duplicate=1.0)
        profile = Profile(name="x", synthesis=settings, curation=curation)
        arrived = make_posts(posts, "deu", made.CARD, settings, 0, home.ledgers, lambda _: None, likely_parents).posts
        found = curate_by_profile(posts, arrived, "deu", made.CARD, profile, home, lambda _: None)
        questions = len(server.judged)
    written = pd.DataFrame([server.written[text] for text in arrived["text"]], index=arrived.index)
    assert (written["label"] == arrived["label"]).all() and len(arrived) == 240
    assert (written["type"] == arrived["asked_type"]).all() and set(arrived["asked_type"]) == {
        "",
        *made.CARD.auxiliary.types,
    }
    assert arrived[list(made.CARD.auxiliary.columns)].isna().all(axis=None)  # nobody knows what they really are
    assert fold_leaks(pd.concat([posts, arrived])) == ""

    table = found.table[found.table["source"] != REAL]
    doubted = table[table["stage"] == "judge"]
    assert set(doubted["asked_type"]) == {"religious"} and (doubted["reason"].str.endswith("label 0.20")).all()
    assert not table[table["keep"]]["asked_type"].eq("religious").any() and found.judged == questions - 20
    unsure = table[table["asked_type"] == "other"]
    assert unsure["judge_probability"].isna().all() and unsure["keep"].any()

    asked = asked_types(posts, made.CARD, settings)
    rows: dict[Any, Any] = {row["type"]: row for row in type_funnel(found.table, asked)}
    for name, row in rows.items():
        mine = table[table["asked_type"] == name]
        assert row["asked"] == asked[name] == row["made"] == len(mine) and row["kept"] == mine["keep"].sum()
    assert rows["gender/sexual"]["asked"] == max(row["asked"] for row in rows.values())  # there is no real one

    decided = gate(found.table, "deu", made.CARD, profile)
    whole = with_labels(found.table, decided)
    compared = {one[:3]: one for one in agreements(whole)}
    judged = whole[(whole["source"] != REAL) & whole["judge_probability"].notna()]
    positive = (judged["judge_probability"] >= 0.5).astype(int)
    for one, other, sides in (
        ("plan", "judge", (judged["label"], positive)),
        ("judge", "backbone", (positive, judged["backbone_label"])),
    ):
        first, second = (side.astype(int) for side in sides)
        assert compared["synthetic", one, other].common == len(judged)
        assert compared["synthetic", one, other].share == (first == second).mean()
        assert compared["synthetic", one, other].kappa == pytest.approx(cohen_kappa_score(first, second))
    assert compared["synthetic", "plan", "judge"].share == 1 - (positive != judged["label"]).mean()
    assert compared["real", "label", "judge"].common == 20 and compared["real", "label", "backbone"].common > 200
    figures = judge_figures(whole, found.judged)
    assert figures["judge_agreement"] == compared["synthetic", "plan", "judge"].share
    assert figures["judge_answered"] == len(judged) / found.judged


PROFILE = """
name: typed
data: bundled
languages: [deu]
backbones:
  - {{name: linear, kind: linear, words: [1, 1], characters_in_words: null, cased_characters: null}}
  - {{name: tiny, kind: lora, model: "tiny:gemma3", device: cpu, rank: 2, epochs: 1, max_length: 32}}
  - {{name: family, kind: lora, model: "tiny:gemma3", device: cpu, scope: pooled}}
folds: {{count: 2}}
synthesis: {{source: endpoint, posts: 60, base_url: "{url}"}}
curation: {{judge: true, judge_real_posts: 20}}
decision: {{resamples: 20}}
report: {{resamples: 100}}
"""


def test_the_evaluation_says_who_agrees_with_whom_for_any_backbone_of_the_profile(tmp_path: Path) -> None:
    home, own = tmp_path / "home", tmp_path / "own.yaml"
    command = ("synth", "evaluate", "--profile", str(own))
    with obedient(said) as server:
        own.write_text(PROFILE.format(url=server.url))
        printed = polar(home, *command, OPENAI_API_KEY="sk-x").stdout
        asked = len(server.asked) + len(server.judged)
        tuned = polar(home, *command, "--backbone", "tiny", OPENAI_API_KEY="sk-x").stdout
        assert len(server.asked) + len(server.judged) == asked  # nothing is asked twice
        wrong = polar(home, *command, "--backbone", "gemma", check=False, OPENAI_API_KEY="sk-x")
        pooled = polar(home, *command, "--backbone", "family", check=False, OPENAI_API_KEY="sk-x")
    for text in (printed, tuned):
        for pair in ("plan and judge", "plan and backbone", "judge and backbone"):
            assert re.search(rf"synthetic\s+│?\s*{pair}\s+│?\s*\d+\s+│?\s*[\d.]+%", text), text
        assert "may share the generator's idea of the label" in " ".join(text.split())
    line = re.compile(r"real\s+│?\s*label and backbone.*")
    assert line.findall(printed) != line.findall(tuned)
    assert wrong.returncode == 2 and "'gemma' is not in profile 'typed': use linear, tiny, family" in wrong.stderr
    assert pooled.returncode == 2 and "is not trained here on one language alone" in pooled.stderr
