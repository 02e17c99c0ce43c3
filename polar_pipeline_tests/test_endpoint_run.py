"""An endpoint through the whole graph: two languages at once under one cap, nothing asked twice, the key nowhere."""

import json
import sqlite3
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from polar_pipeline_tests.conftest import polar
from polar_pipeline_tests.synthesis.made import Running

pytestmark = pytest.mark.slow
KEY = "sk-test-9f27c1e0b4"
CAP = 0.012

PROFILE = """
name: asked
description: Posts of a server.
data: bundled
languages: [deu, eng]
backbones:
  - {{name: linear, kind: linear}}
synthesis:
  source: endpoint
  posts: 400
  base_url: {url}
  concurrency: 8
  timeout: 2.0
  price_prompt: 1.0
  price_completion: 1.0
  max_dollars: {dollars}
curation: {{gate: false, judge: {judge}}}
"""


class Call(NamedTuple):
    """A call in the ledger; costs in dollars, and the outcome of those that have an answer."""

    reserved: float
    cost: float
    answer: str | None


def ledger_calls(home: Path) -> list[Call]:
    with sqlite3.connect(home / "ledgers" / "ledger.db") as database:
        rows = database.execute(
            "SELECT reserved / 1e12, cost / 1e12, iif(reply IS NULL, NULL, outcome) FROM calls"
        ).fetchall()
    return [Call(*row) for row in rows]


def test_two_languages_share_a_cap_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    rules = {"429_after": 0.05, "500": 0.05, "malformed": 0.05, "refusal": 0.05, "german": 0.8}
    server = Running(tmp_path, rules, delay=0.02)
    own, home = tmp_path / "own.yaml", tmp_path / "home"
    try:
        own.write_text(PROFILE.format(url=server.url, dollars=CAP, judge="false"))
        polar(home, "run", "--all", "--profile", str(own), "--jobs", "2", OPENAI_API_KEY=KEY)
        calls = ledger_calls(home)
        spent = sum(call.cost for call in calls)
        worst = max(call.reserved for call in calls)
        assert CAP - worst - 1e-9 <= spent <= CAP  # each for itself they would have spent up to twice as much
        first, good = server.get("calls"), server.get("answered")
        assert len(calls) == len(first)
        for code in ("deu", "eng"):
            made = pd.read_parquet(home / "profiles" / "asked" / "tables" / "synthetic_posts" / f"{code}.parquet")
            table = pd.read_parquet(home / "profiles" / "asked" / "tables" / "deduped_posts" / f"{code}.parquet")
            assert len(table[table["source"] != "real"]) == len(made)
        own.write_text(PROFILE.format(url=server.url, dollars=1.0, judge="false"))  # room for the rest
        polar(home, "run", "--language", "deu", "--profile", str(own), OPENAI_API_KEY=KEY)
        later = server.get("calls")[len(first) :]
        assert later and good and not any(body in good for body in later)
    finally:
        server.stop()
    leaked = [path for path in home.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert leaked == []


def test_what_it_cost_and_what_was_kept_is_in_mlflow_and_dagster(tmp_path: Path) -> None:
    server = Running(tmp_path, {"malformed": 0.15, "500": 0.15, "foreign": 0.15, "duplicate": 0.2, "german": 0.5})
    home, own = tmp_path / "home", tmp_path / "own.yaml"
    try:
        own.write_text(PROFILE.format(url=server.url, dollars=1.0, judge="true"))
        polar(home, "run", "--language", "deu", "--profile", str(own), OPENAI_API_KEY=KEY)
    finally:
        server.stop()
    calls = ledger_calls(home)
    metrics = {asset: read_metrics(home, asset) for asset in ("synthetic_posts", "deduped_posts")}
    whole = sum(call.cost for call in calls)
    posts, look = (metrics[asset]["dollars"] for asset in metrics)
    assert posts + look == pytest.approx(whole) and min(posts, look) > 0
    assert whole > sum(call.cost for call in calls if call.answer == "ok")  # unreadable answers are paid for too
    assert metrics["synthetic_posts"]["calls/malformed"] > 0 and metrics["synthetic_posts"]["calls/status_500"] > 0
    assert 0 < metrics["deduped_posts"]["judge_agreement"] < 1
    judged = metrics["deduped_posts"]
    assert judged["judge_answered"] > 0.5 and judged["judge_probability"] == pytest.approx(judged["judge_agreement"])
    assert judged["agreement/synthetic/plan_and_judge"] == judged["judge_agreement"]
    assert 0.4 < judged["agreement/real/label_and_judge"] < 0.6 and judged["kappa/real/label_and_judge"] == 0
    asked = {name: value for name, value in metrics["synthetic_posts"].items() if name.startswith("asked/")}
    assert asked["asked/gender_sexual"] >= judged["made/gender_sexual"] > 0  # some answers may be unreadable
    flagged = {
        name.rsplit("/", 1)[1] for name, value in metrics["deduped_posts"].items() if name[:4] == "flag" and value
    }
    assert {"language", "duplicate", "judge"} <= flagged
    assert any(name.startswith("kept/direct/") for name in metrics["deduped_posts"])


def test_a_verification_that_a_cap_ended_goes_on_when_the_cap_is_raised(tmp_path: Path) -> None:
    server = Running(tmp_path, {"german": 1.0})
    home, own = tmp_path / "home", tmp_path / "own.yaml"
    stored = home / "profiles" / "asked" / "tables" / "deduped_posts" / "deu.provenance.json"

    def run(judge: str, most: int) -> str:
        text = PROFILE.format(url=server.url, dollars=1.0, judge=judge).replace("posts: 400", "posts: 40")
        own.write_text(text.replace("  concurrency: 8", f"  max_requests: {most}"))
        return polar(home, "run", "--language", "deu", "--profile", str(own), OPENAI_API_KEY=KEY).stdout

    def incomplete() -> str:
        return str(json.loads(stored.read_text())["incomplete"])

    try:
        run("false", 1000)
        run("true", len(ledger_calls(home)))  # nothing is left for the judge
        assert "max_requests" in incomplete()
        assert f"deduped_posts: incomplete: {incomplete()}" in run("true", 1000) and incomplete() == ""
    finally:
        server.stop()


def read_metrics(home: Path, asset: str) -> dict[str, float]:
    with sqlite3.connect(home / "mlflow.db") as database:
        (run,) = database.execute(
            "select run_uuid from tags where key='dagster.asset' and value=?", (asset,)
        ).fetchone()
        return dict(database.execute("select key, value from metrics where run_uuid=?", (run,)))


def test_a_wrong_key_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    server = Running(tmp_path, {"401": 1.0})
    try:
        (tmp_path / "own.yaml").write_text(PROFILE.format(url=server.url, dollars=CAP, judge="false"))
        done = polar(tmp_path / "home", "run", "--language", "deu", "--profile", str(tmp_path / "own.yaml"),
                     check=False, OPENAI_API_KEY=KEY)  # fmt: skip
    finally:
        server.stop()
    assert done.returncode == 2
    assert "the endpoint refused the key (status 401)" in done.stderr
    assert KEY not in done.stderr + done.stdout and "Traceback" not in done.stderr
