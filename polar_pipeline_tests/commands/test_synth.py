"""`polar synth`: the plan says what would be asked and paid, the evaluation what it was good for."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from polar_pipeline.synthesis.ledger import Ledger, read_account
from polar_pipeline_tests.conftest import polar
from polar_pipeline_tests.synthesis.made import Running, free_port

pytestmark = pytest.mark.slow

PROFILE = """
name: asked
description: Posts of a server.
data: bundled
languages: [deu]
backbones:
  - {{name: linear, kind: linear}}
synthesis: {{source: endpoint, posts: 60, base_url: {url}, timeout: 2.0, attempts: 2, {more}}}
curation: {{judge: true}}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path, {"refusal": 0.2, "german": 0.8})
    yield running
    running.stop()


def write(folder: Path, url: str, more: str = "max_dollars: 10") -> str:
    path = folder / "own.yaml"
    path.write_text(PROFILE.format(url=url, more=more))
    return str(path)


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(("profile", "said"), [("demo", "source: offline"), ("cpu", "source: none")])
def test_without_an_endpoint_the_plan_is_no_request(tmp_path: Path, profile: str, said: str) -> None:
    printed = polar(tmp_path / "home", "synth", "plan", "--profile", profile).stdout
    assert f"{said}): no request, $ 0" in printed


def test_the_plan_counts_verification_what_is_useless_and_the_caps_and_takes_no_lock(
    tmp_path: Path, server: Running
) -> None:
    home, plan = tmp_path / "home", ("synth", "plan", "--profile", write(tmp_path, server.url))
    before = words(polar(home, *plan).stdout)
    # 10 requests for 60 posts; at least as many lots of one fold for the judge
    requests, answered, useless, posts, look = map(
        int, re.search(r"deu (\d+) (\d+) (\d+) (\d+) (\d+)", before).groups()
    )  # type: ignore[union-attr]
    assert (requests, answered, useless, posts) == (10, 0, 0, 60) and 10 <= look < 20
    assert "never more than $10.0000" in before and server.get("count")["calls"] == 0
    polar(home, "synth", "evaluate", "--profile", write(tmp_path, server.url), OPENAI_API_KEY="sk-x")
    with Ledger(home / "ledgers", "deu"):  # as a run would hold it
        after = words(polar(home, *plan).stdout)
    found = re.search(r"deu 10 10 (\d+) 0 ", after)
    assert found and int(found[1]) > 0 and f"{found[1]} answers are useless" in after
    capped = write(tmp_path, server.url, "max_dollars: 0.0001, max_requests: 12, model: other")
    said = words(polar(home, "synth", "plan", "--profile", capped).stdout)
    assert "max_requests (12) would stop it after 0 more requests" in said
    assert "max_dollars ($0.0001) would probably stop it" in said


@pytest.mark.parametrize("source", ["offline", "endpoint"])
def test_the_plan_counts_embeddings_of_an_endpoint_until_the_cache_has_them(
    tmp_path: Path, server: Running, source: str
) -> None:
    own = tmp_path / "own.yaml"
    text = PROFILE.format(url=server.url, more="max_dollars: 10000, price_embedding: 1000.0")
    text = text.replace("{judge: true}", "{embedder: 'api:small', gate: false}")
    own.write_text(text.replace("source: endpoint", f"source: {source}"))
    home, plan = tmp_path / "home", ("synth", "plan", "--profile", str(own))

    def embeddings() -> tuple[int, float]:
        found = re.search(r"deu \d+ \d+ \d+ \d+ 0 (\d+) [\d,]+ [\d.,]+ ([\d.,]+) ", words(polar(home, *plan).stdout))
        assert found
        return int(found[1]), float(found[2].replace(",", ""))

    lots, dollars = embeddings()
    assert 1 < lots < 5 and dollars > 10  # some hundred posts of the bundled corpus
    # all vectors of the server point the same way, so that no post is left
    polar(home, "synth", "evaluate", "--profile", str(own), OPENAI_API_KEY="sk-x", check=False)
    after, less = embeddings()
    assert after <= 1 and less < 0.2 * dollars


def test_the_evaluation_looks_twice_and_says_what_there_was_and_which_cap_ended_it(
    tmp_path: Path, server: Running
) -> None:
    home = tmp_path / "home"
    own = write(tmp_path, server.url, "max_requests: 14")
    done = polar(home, "synth", "evaluate", "--profile", own, OPENAI_API_KEY="sk-x", check=False)
    assert read_account(home / "ledgers").requests == 14  # some of them of the verification
    assert "usable of 60 posts asked for; synthesis.max_requests (14) was reached" in words(done.stdout)
    assert done.returncode in (0, 1) and (done.returncode == 1) == ("nothing to train with" in done.stdout)


def test_useless_answers_are_asked_for_again_after_a_word(tmp_path: Path, server: Running) -> None:
    home, own = tmp_path / "home", ("--profile", write(tmp_path, server.url))
    assert "deu: nothing was answered yet." in polar(home, "synth", "retry", *own).stdout
    polar(home, "synth", "evaluate", *own, OPENAI_API_KEY="sk-x")
    before = server.get("count")["calls"]
    polar(home, "synth", "evaluate", *own, OPENAI_API_KEY="sk-x")
    assert server.get("count")["calls"] == before
    assert "useless answers, which the next run asks for again" in polar(home, "synth", "retry", *own).stdout
    polar(home, "synth", "evaluate", *own, OPENAI_API_KEY="sk-x")
    assert server.get("count")["calls"] > before


def test_open_batches_are_given_up_after_a_word(tmp_path: Path) -> None:
    home, own = tmp_path / "home", ("--profile", write(tmp_path, "http://127.0.0.1:1/v1"))
    with Ledger(home / "ledgers", "deu") as ledger:
        ledger.reserve_batch({"a": (0.5, ""), "b": (0.5, "")})
    polar(home, "synth", "retry", *own)
    assert read_account(home / "ledgers") == (2, 0.0, 1.0)
    said = "deu: 2 requests of batches are given up: they count at their worst case, and are asked again."
    assert said in words(polar(home, "synth", "retry", "--open-batches", *own).stdout)
    assert read_account(home / "ledgers") == (2, 1.0, 0.0)
    assert "deu: no batch is open." in polar(home, "synth", "retry", "--open-batches", *own).stdout


def test_no_post_at_all_is_a_failure(tmp_path: Path, server: Running) -> None:
    own = write(tmp_path, server.url, "max_requests: 0")
    done = polar(tmp_path / "home", "synth", "evaluate", "--profile", own, OPENAI_API_KEY="sk-x", check=False)
    assert done.returncode == 1 and "0 usable of 60" in done.stdout
    own = write(tmp_path, f"http://127.0.0.1:{free_port()}/v1")
    done = polar(tmp_path / "home", "synth", "evaluate", "--profile", own, OPENAI_API_KEY="sk-x", check=False)
    assert done.returncode == 2 and "no connection to http://127.0.0.1" in done.stderr


def test_a_missing_key_is_said_before_any_language_starts(tmp_path: Path, server: Running) -> None:
    own = write(tmp_path, server.url)
    done = polar(tmp_path / "home", "run", "--all", "--profile", own, check=False, OPENAI_API_KEY="")
    assert done.returncode == 2 and "OPENAI_API_KEY is not set" in done.stderr
    assert "languages, " not in done.stdout and not list((tmp_path / "home").rglob("tables"))
