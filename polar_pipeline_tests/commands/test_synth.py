"""`polar synth`: the plan says what would be asked and paid, the evaluation what it was good for."""

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from polar_pipeline.corpus.posts import REAL
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.curation.fold_leakage import likely_parents
from polar_pipeline.defs.project import Project
from polar_pipeline.endpoint.ledger import Ledger, read_account
from polar_pipeline.synthesis.from_file import posts_from_file
from polar_pipeline.tables.table_file import read_table
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
curation: {{judge: true, judge_real_posts: {real}}}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path, {"refusal": 0.2, "german": 0.8})
    yield running
    running.stop()


def write(folder: Path, url: str, more: str = "max_dollars: 10", real: int = 0) -> str:
    path = folder / "own.yaml"
    path.write_text(PROFILE.format(url=url, more=more, real=real))
    return str(path)


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(("profile", "said"), [("demo", "source: offline"), ("cpu", "source: none")])
def test_without_an_endpoint_the_plan_is_no_request(tmp_path: Path, profile: str, said: str) -> None:
    printed = polar(tmp_path / "home", "synth", "plan", "--profile", profile).stdout
    assert f"{said}): no request, $ 0" in printed


FROM_FILE = """
name: read
data: bundled
languages: [deu]
backbones:
  - {name: linear, kind: linear}
synthesis: {source: file, path: folder/mine.csv}
curation: {gate: false}
"""


def test_posts_of_a_file_beside_the_profile_cost_nothing_and_are_judged(tmp_path: Path) -> None:
    home, own = tmp_path / "home", tmp_path / "profiles" / "own.yaml"
    (own.parent / "folder").mkdir(parents=True)
    own.write_text(FROM_FILE)
    missing = polar(home, "synth", "evaluate", "--profile", str(own), check=False)
    assert missing.returncode == 2 and "synthesis.path folder/mine.csv does not exist" in missing.stderr
    real = pd.read_csv(bundled_folder() / "train" / "deu.csv")
    texts = [f"{one} {other}" for one, other in zip(real["text"][:40], real["text"][60:100], strict=True)]
    real[:40].assign(text=texts, parent_id=real["id"])[["text", "polarization", "parent_id"]].to_json(
        own.parent / "folder" / "mine.csv", orient="records", lines=True
    )
    one_language = polar(home, "synth", "evaluate", "--profile", str(own), check=False)
    assert one_language.returncode == 2 and "mine.csv does not say which language" in one_language.stderr
    (own.parent / "folder" / "mine.csv").rename(own.parent / "folder" / "mine_deu.csv")
    own.write_text(FROM_FILE.replace("mine.csv", "mine_deu.csv"))
    assert "reads its synthetic posts from a file" in words(polar(home, "synth", "plan", "--profile", str(own)).stdout)
    said = words(polar(home, "synth", "evaluate", "--profile", str(own)).stdout)
    assert re.search(r"deu: \d\d usable of 40 posts read", said)


def test_an_export_needs_finished_languages_and_a_name_that_says_its_form(tmp_path: Path) -> None:
    home = tmp_path / "home"
    nothing = polar(home, "synth", "export", "--profile", "demo", check=False)
    assert nothing.returncode == 1 and "left out: deu: raw_posts: not made yet" in nothing.stderr
    assert "no synthetic post in 0 finished languages: nothing was written" in nothing.stderr
    wrong = polar(home, "synth", "export", "--profile", "demo", "--to", "posts.xlsx", check=False)
    assert wrong.returncode == 2 and "posts.xlsx ends neither in .csv nor in .jsonl" in wrong.stderr
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize("name", ["all.csv", "all.jsonl"])
def test_exported_posts_are_kept_or_say_why_not_and_can_be_read_again(
    finished_home: Path, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "deep" / name
    said = polar(finished_home, "synth", "export", "--profile", "demo", "--language", "deu", "--to", str(target)).stdout
    table = read_table(target).frame
    curated = pd.read_parquet(finished_home / "profiles" / "demo" / "tables" / "deduped_posts" / "deu.parquet")
    posts = curated[curated["source"] != REAL].reset_index(drop=True)
    kept = int(posts["keep"].sum())
    assert f"{len(posts)} synthetic posts of 1 languages, {kept} of them kept, in {target}" in said
    assert list(table) == [
        "id", "language", "text", "polarization", "parent_id", "source", "kept", "reason", "asked_type",
        "judge_probability", "backbone_label", "shown",
    ]  # fmt: skip
    assert table["id"].tolist() == posts["id"].tolist() and set(table["source"]) == {"perturbed"}
    assert table["parent_id"].tolist() == posts["parent_id"].tolist() and set(table["language"]) == {"deu"}
    assert (table["kept"] == "true").tolist() == posts["keep"].tolist() == (table["reason"] == "").tolist()
    assert [reason.partition(":")[0] for reason in table["reason"]] == posts["stage"].tolist()

    own = tmp_path / "own.yaml"
    own.write_text(FROM_FILE.replace("folder/mine.csv", f"deep/{name}"))
    project = Project.load(str(own), {"POLAR_HOME": str(tmp_path / "home")})
    again = posts_from_file(
        project.posts("deu"), "deu", project.card, project.synthesis("deu"), likely_parents, lambda _: None
    )
    columns = ["id", "text", "label", "fold", "parent_id", "shown"]
    pd.testing.assert_frame_equal(again[columns], posts.sort_values("id", ignore_index=True)[columns])


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
    own = write(tmp_path, server.url, real=60)  # 60 real posts of five folds, six a request
    more = re.search(r"deu \d+ \d+ \d+ \d+ (\d+)", words(polar(home, "synth", "plan", "--profile", own).stdout))
    assert more and 10 <= int(more[1]) - look < 15
    write(tmp_path, server.url)
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
    text = PROFILE.format(url=server.url, more="max_dollars: 10000, price_embedding: 1000.0", real=0)
    text = text.replace("{judge: true, judge_real_posts: 0}", "{embedder: 'api:small', gate: false}")
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
