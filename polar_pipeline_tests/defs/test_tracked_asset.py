"""The tracked run lives exactly as long as the step, the storing of its output included."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.tracked_asset import REUSE_TAG, StepContext, tracked_asset
from polar_pipeline.errors import InputError
from polar_pipeline.storage.outputs import Check
from polar_pipeline.tracking.base import TrackedRun
from polar_pipeline_tests.defs.toy import CODES, RANGE, Recorder, ToyOutputs, key, lineage_of, upstream_of

PREFIX = "demo__thing"  # the step of the asset `thing`
ONCE = dg.BackfillPolicy.single_run()


class Failing(ToyOutputs):
    """Whose disk is full for some languages."""

    full: tuple[str | None, ...] = ()

    @property
    def lineage(self) -> Lineage:
        lineage = super().lineage
        whole = lineage.outputs.write

        def write(asset: str, language: str | None, value: Any, **made: Any) -> Any:
            if language in self.full:
                raise OSError("disk full")
            return whole(asset, language, value, **made)

        lineage.outputs.write = write  # type: ignore[method-assign]
        return lineage


@pytest.fixture
def outputs(tmp_path: Path) -> Failing:
    """Of `posts` and `words`, and `thing`, which a test makes of them."""
    found = Failing(tmp_path, {"posts": (), "words": (), "thing": ()})
    for code in CODES:
        found.store("posts", code, code.upper())
        found.store("words", code, code * 2)
    return found


def asset_of(body: Any, partitioned: bool = True, **settings: Any) -> dg.AssetsDefinition:
    return tracked_asset(lineage_of("thing", partitioned), name="thing", **settings)(body)


def run(
    body: Any, outputs: ToyOutputs, instance: dg.DagsterInstance | None = None, tags: Any = None, **settings: Any
) -> tuple[dg.ExecuteInProcessResult, Recorder]:
    """An asset without languages, or with languages if `code` says which one."""
    recorder, code = Recorder(), settings.pop("code", None)
    asset = asset_of(body, partitioned=code is not None, **settings)
    upstream = [upstream_of(name) for name in ("posts", "words")]
    resources = {"tracker": recorder, "outputs": outputs, "watcher": lambda progress: None}
    result = dg.materialize(
        [*upstream, asset], resources=resources, raise_on_error=False, partition_key=code, instance=instance, tags=tags
    )
    return result, recorder


def described(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    return str(failure.step_failure_data.user_failure_data and failure.step_failure_data.user_failure_data.description)


def test_the_body_gets_the_run_and_the_materialization_its_link(outputs: Failing) -> None:
    def body(context: StepContext, run: TrackedRun) -> str:
        run.log(metrics={"posts": 3})
        context.add_output_metadata({"posts": 3})
        return "made"

    result, recorder = run(body, outputs)
    ((step, status, noted),) = recorder.steps
    assert (step.asset, step.partition, step.attempt, status) == ("thing", None, 1, "FINISHED")
    assert step.dagster_run == result.run_id
    assert noted.metrics == {"posts": 3}
    (event,) = result.asset_materializations_for_node(PREFIX)
    assert event.metadata["mlflow_url"] == dg.MetadataValue.url("http://x/1")
    assert event.metadata["posts"].value == 3
    assert outputs.lineage.read("thing", None) == "made"


def test_the_data_version_is_the_hash_of_what_is_stored(outputs: Failing) -> None:
    result, _ = run(lambda context, run: "made", outputs)
    (event,) = result.asset_materializations_for_node(PREFIX)
    provenance = outputs.lineage.outputs.provenance("thing", None)
    assert provenance is not None and event.tags is not None
    assert event.tags["dagster/data_version"] == provenance.sha256


def test_bad_input_fails_at_once_with_its_sentence(outputs: Failing) -> None:
    def body(context: StepContext, run: TrackedRun) -> str:
        raise InputError("file x, row 3: fix it.")

    result, recorder = run(body, outputs, retry_policy=dg.RetryPolicy(max_retries=3))
    assert not result.success
    assert [status for _, status, _ in recorder.steps] == ["FAILED"]
    assert described(result) == "file x, row 3: fix it."
    assert outputs.lineage.outputs.provenance("thing", None) is None


def test_bad_input_from_outside_is_not_retried_either(outputs: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that is gone is found when the step asks what it is made from."""

    def gone(self: ToyOutputs, *given: Any) -> Any:
        raise InputError("no release: fetch it.")

    monkeypatch.setattr(ToyOutputs, "made_from", gone)
    result, recorder = run(lambda context, run: "made", outputs, retry_policy=dg.RetryPolicy(max_retries=3))
    assert described(result) == "no release: fetch it."
    assert [status for _, status, _ in recorder.steps] == ["FAILED"]


def test_each_attempt_is_a_run_of_its_own(outputs: Failing) -> None:
    attempts = []

    def body(context: StepContext, run: TrackedRun) -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("lost")
        return "made"

    result, recorder = run(body, outputs, retry_policy=dg.RetryPolicy(max_retries=1))
    assert result.success
    assert [(step.attempt, status) for step, status, _ in recorder.steps] == [(1, "FAILED"), (2, "FINISHED")]


def test_an_output_that_cannot_be_stored_fails_the_run(outputs: Failing) -> None:
    outputs.full = (None,)
    result, recorder = run(lambda context, run: "made", outputs)
    assert not result.success
    assert [status for _, status, _ in recorder.steps] == ["FAILED"]
    assert not result.asset_materializations_for_node(PREFIX)


@pytest.mark.parametrize("partition", ["deu", "eng"])
def test_partition_and_named_inputs_reach_the_body(outputs: Failing, partition: str) -> None:
    seen = {}

    def body(context: StepContext, posts: str, run: TrackedRun, **inputs: str) -> str:
        seen.update(inputs, posts=posts, language=context.partition_key)
        return "made"

    result, recorder = run(body, outputs, code=partition, ins={"more": "words"})
    assert result.success and recorder.steps[0][0].name == f"thing[{partition}]"
    assert seen == {"posts": partition.upper(), "more": partition * 2, "language": partition}
    provenance = outputs.lineage.outputs.provenance("thing", partition)
    assert provenance is not None and set(provenance.inputs) == {f"posts[{partition}]", f"words[{partition}]"}


CHECKS = {"full": "There is something.", "long": "There is much."}


def check(context: StepContext, value: str, **upstream: Any) -> Iterator[Check]:
    yield Check(name="full", complaint="" if value else "nothing there")
    yield Check(name="long", complaint="" if len(value) > 9 else f"{len(value)} letters", warning=True)


@pytest.mark.parametrize(
    ("value", "passed"), [("", (False, False)), ("short", (True, False)), ("long " * 9, (True, True))]
)
def test_checks_run_in_the_step(outputs: Failing, value: str, passed: tuple[bool, bool]) -> None:
    result, _ = run(lambda context, run: value, outputs, checks=check, check_names=CHECKS)
    found = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
    assert (found["full"].passed, found["long"].passed) == passed
    assert (found["full"].severity.value, found["long"].severity.value) == ("ERROR", "WARN")
    assert found["full"].description == (None if value else "nothing there")
    reasons = outputs.lineage.why_not_current("thing", None)
    assert reasons == ([] if value else ["it fails the check full: nothing there"])
    # what was refused is not taken for finished, also by a run that finds it unchanged
    assert (outputs.lineage.unchanged("thing", None) is None) == (not value)


def test_what_is_unchanged_is_not_computed_again_but_reported(outputs: Failing) -> None:
    outputs = Failing(outputs.project.home.root, {"posts": (), "thing": ("posts",)})
    calls = []

    def body(context: StepContext, posts: str, run: TrackedRun) -> str:
        calls.append(posts)
        context.add_output_metadata({"posts": posts})
        return "made"

    given: dict[str, Any] = {"code": "deu", "checks": check, "check_names": CHECKS, "tags": {REUSE_TAG: "true"}}
    with dg.DagsterInstance.ephemeral() as instance:
        first, _ = run(body, outputs, instance, **given)
        again, recorder = run(body, outputs, instance, **given)
        before, now = (done.asset_materializations_for_node(PREFIX)[0] for done in (first, again))
        assert calls == ["DEU"] and recorder.steps == []
        assert before.tags and now.tags and before.tags["dagster/data_version"] == now.tags["dagster/data_version"]
        assert now.metadata["posts"] == before.metadata["posts"] and now.metadata["reused"].value is True
        assert "reused" not in before.metadata
        assert [evaluation.passed for evaluation in again.get_asset_check_evaluations()] == [True, False]
        run(body, outputs, instance, **given | {"tags": {}})  # from the UI
        assert calls == ["DEU"] * 2
        outputs.settings["rule"] = "other"
        run(body, outputs, instance, **given)
        outputs.store("posts", "deu", "new")
        run(body, outputs, instance, **given)
        path = outputs.lineage.outputs.path("thing", "deu", str)
        path.write_text("mode\n")
        run(body, outputs, instance, **given)
        assert calls == ["DEU"] * 3 + ["new"] * 2 and path.read_text() == "made\n"


def test_a_body_says_what_else_it_wrote_and_what_is_missing(outputs: Failing, tmp_path: Path) -> None:
    def body(context: StepContext, run: TrackedRun) -> str:
        (tmp_path / "more.csv").write_text("1")
        context.files.append(tmp_path / "more.csv")
        context.incomplete = "the cap of 1 dollar was reached"
        return "made"

    assert run(body, outputs)[0].success
    assert outputs.lineage.why_not_current("thing", None) == ["incomplete: the cap of 1 dollar was reached"]
    (tmp_path / "more.csv").unlink()
    assert "more.csv is missing" in outputs.lineage.why_not_current("thing", None)


def run_range(
    body: Any, outputs: ToyOutputs, instance: dg.DagsterInstance | None = None, **settings: Any
) -> tuple[dg.ExecuteInProcessResult, Recorder]:
    """Three languages in one run, as a backfill in a single run does it."""
    recorder, asset = Recorder(), asset_of(body, backfill_policy=ONCE, **settings)
    upstream = upstream_of("posts")
    resources = {"tracker": recorder, "outputs": outputs, "watcher": lambda progress: None}
    result = dg.materialize([upstream, asset], resources=resources, tags=RANGE, raise_on_error=False, instance=instance)
    return result, recorder


def materialized(result: dg.ExecuteInProcessResult) -> list[str | None]:
    return [event.partition for event in result.asset_materializations_for_node(PREFIX)]


def stored(outputs: ToyOutputs) -> dict[str, str]:
    lineage = outputs.lineage
    return {code: lineage.read("thing", code) for code in lineage.outputs.languages("thing")}


def test_a_run_over_languages_tracks_each_and_gives_each_its_own_metadata(outputs: Failing) -> None:
    def body(context: StepContext, posts: str, run: TrackedRun) -> str:
        context.add_output_metadata({"posts": posts})
        return f"{context.partition_key}:{posts}:{context.last}"

    result, recorder = run_range(body, outputs)
    assert result.success
    assert stored(outputs) == {"deu": "deu:DEU:False", "eng": "eng:ENG:False", "hin": "hin:HIN:True"}
    assert [(step.partition, status) for step, status, _ in recorder.steps] == [
        ("deu", "FINISHED"), ("eng", "FINISHED"), ("hin", "FINISHED"),
    ]  # fmt: skip
    events = {event.partition: event for event in result.asset_materializations_for_node(PREFIX)}
    assert {code: event.metadata["posts"].value for code, event in events.items()} == {c: c.upper() for c in CODES}
    assert all(event.metadata["mlflow_url"] == dg.MetadataValue.url("http://x/1") for event in events.values())
    for code, event in events.items():
        provenance = outputs.lineage.outputs.provenance("thing", code)
        assert provenance is not None and event.tags is not None
        assert event.tags["dagster/data_version"] == provenance.sha256
        assert set(provenance.inputs) == {f"posts[{code}]"}


def test_one_bad_language_is_named_after_the_others_are_done(outputs: Failing) -> None:
    def body(context: StepContext, posts: str, run: TrackedRun) -> str:
        if context.partition_key == "eng":
            raise InputError("no posts: add some.")
        return posts

    result, recorder = run_range(body, outputs, retry_policy=dg.RetryPolicy(max_retries=3))
    assert not result.success
    assert [(step.partition, status) for step, status, _ in recorder.steps] == [
        ("deu", "FINISHED"), ("eng", "FAILED"), ("hin", "FINISHED"),
    ]  # fmt: skip
    assert "1 of 3 languages failed (eng: no posts: add some.)" in described(result)
    assert materialized(result) == ["deu", "hin"] and set(stored(outputs)) == {"deu", "hin"}


@pytest.mark.parametrize("error", [OSError("disk full"), MemoryError(), RuntimeError("CUDA out of memory")])
def test_whatever_goes_wrong_with_one_language_does_not_keep_the_others_from_it(
    outputs: Failing, error: Exception
) -> None:
    def body(context: StepContext, posts: str, run: TrackedRun) -> str:
        if context.partition_key == "deu":
            raise error
        return posts

    result, recorder = run_range(body, outputs)
    assert not result.success and f"deu: {type(error).__name__}: {error}" in described(result)
    assert [status for _, status, _ in recorder.steps] == ["FAILED", "FINISHED", "FINISHED"]
    assert materialized(result) == ["eng", "hin"] and set(stored(outputs)) == {"eng", "hin"}


def test_a_value_that_cannot_be_stored_is_its_languages_fault_alone(outputs: Failing) -> None:
    outputs.full = ("eng",)
    result, recorder = run_range(lambda context, posts, run: posts, outputs)
    assert [status for _, status, _ in recorder.steps] == ["FINISHED", "FAILED", "FINISHED"]
    assert materialized(result) == ["deu", "hin"] and "eng: OSError: disk full" in described(result)


def test_a_language_whose_posts_are_not_there_is_named_and_the_others_are_done(outputs: Failing) -> None:
    seen = {}

    def body(context: StepContext, posts: str, run: TrackedRun) -> str:
        seen[context.partition_key] = context.last
        return posts

    outputs.lineage.outputs.path("posts", "hin", str).unlink()
    result, _ = run_range(body, outputs)
    assert described(result).startswith("1 of 3 languages failed (hin: ")
    assert "hin.txt is not there: materialize posts[hin] first" in described(result)
    assert seen == {"deu": False, "eng": True} and materialized(result) == ["deu", "eng"]


def test_each_language_is_materialized_when_it_is_done_and_not_at_the_end(outputs: Failing) -> None:
    """A process that is killed in the last language leaves the others stored, and Dagster knows of them."""
    found = {}

    def body(context: StepContext, posts: str, run: TrackedRun) -> str:
        found[context.partition_key] = (instance.get_materialized_partitions(key("thing")), set(stored(outputs)))
        return posts

    with dg.DagsterInstance.ephemeral() as instance:
        result, _ = run_range(body, outputs, instance=instance)
        assert result.success
        done = [set(), {"deu"}, {"deu", "eng"}]
        assert found == {code: (some, some) for code, some in zip(CODES, done, strict=True)}
        assert instance.get_materialized_partitions(key("thing")) == set(CODES)
        event = instance.get_latest_materialization_event(key("thing"))
    assert materialized(result) == CODES  # once each
    assert event is not None and event.asset_materialization is not None
    assert event.asset_materialization.tags is not None
    assert event.asset_materialization.tags["dagster/code_version"] == "7"


def test_a_run_that_is_stopped_leaves_no_tracked_run_open(outputs: Failing) -> None:
    def body(context: StepContext, posts: str, run: TrackedRun) -> str:
        raise KeyboardInterrupt

    recorder, asset = Recorder(), asset_of(body, backfill_policy=ONCE)
    upstream = upstream_of("posts")
    resources = {"tracker": recorder, "outputs": outputs, "watcher": lambda progress: None}
    with pytest.raises(BaseException):  # noqa: B017 - Dagster has its own name for it
        dg.materialize([upstream, asset], resources=resources, tags=RANGE)
    assert [(step.partition, status) for step, status, _ in recorder.steps] == [("deu", "FAILED")]
    assert stored(outputs) == {}
