"""An endpoint through the whole graph: two languages at once under one cap, nothing asked twice, the key nowhere."""

import json
from pathlib import Path

import pandas as pd
import pytest

from polar_pipeline_tests.conftest import polar
from polar_pipeline_tests.synthesis.made import Running

pytestmark = pytest.mark.slow
KEY = "sk-test-9f27c1e0b4"

PROFILE = """
name: asked
description: Posts of a server.
data: bundled
languages: [deu, eng]
backbones:
  - {{name: linear, kind: linear}}
synthesis:
  source: endpoint
  posts: 120
  base_url: {url}
  concurrency: 8
  timeout: 2.0
  price_prompt: 1.0
  price_completion: 1.0
  max_dollars: 0.03
"""


def test_two_languages_share_a_cap_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    server = Running(tmp_path, {"429_after": 0.05, "500": 0.05, "malformed": 0.05, "refusal": 0.05}, delay=0.02)
    try:
        (tmp_path / "own.yaml").write_text(PROFILE.format(url=server.url))
        home = tmp_path / "home"
        command = ("run", "--all", "--profile", str(tmp_path / "own.yaml"), "--jobs", "2")
        polar(home, *command, OPENAI_API_KEY=KEY)
        first = server.get("count")
        lines = [json.loads(line) for path in home.glob("ledgers/*.jsonl") for line in path.read_text().splitlines()]
        spent = sum(line["dollars"] for line in lines if line["kind"] != "reserve")
        assert 0 < spent <= 0.03
        assert sum(line["kind"] == "reserve" for line in lines) == first["calls"]
        for code in ("deu", "eng"):
            made = pd.read_parquet(home / "artifacts" / "synthetic_posts" / f"{code}.parquet")
            table = pd.read_parquet(home / "artifacts" / "deduped_posts" / f"{code}.parquet")
            assert len(table[table["source"] != "real"]) == len(made)
        polar(home, "run", "--profile", str(tmp_path / "own.yaml"), "--language", "deu", OPENAI_API_KEY=KEY)
        answered = {line["key"] for line in lines if line["kind"] == "reserve"}
        assert server.get("count")["calls"] - first["calls"] <= len(answered)
    finally:
        server.stop()
    leaked = [path for path in home.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert leaked == []


def test_a_wrong_key_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    server = Running(tmp_path, {"401": 1.0})
    try:
        (tmp_path / "own.yaml").write_text(PROFILE.format(url=server.url))
        done = polar(tmp_path / "home", "run", "--language", "deu", "--profile", str(tmp_path / "own.yaml"),
                     check=False, OPENAI_API_KEY=KEY)  # fmt: skip
    finally:
        server.stop()
    assert done.returncode == 2
    assert "the endpoint refused the key (status 401)" in done.stderr
    assert KEY not in done.stderr + done.stdout and "Traceback" not in done.stderr
