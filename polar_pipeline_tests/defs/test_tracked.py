"""The tracked run lives exactly as long as the step, the storing of its output included."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pytest
from polar_pipeline.defs.step import StepContext
from polar_pipeline.defs.tracked import tracked_asset

from polar_pipeline.errors import InputError
from polar_pipeline.tracking.base import Step, TrackedRun


class Recorder:
    """A tracker that remembers how each step ended."""

    def __init__(self) -> None:
        self.steps: list[tuple[Step, str, TrackedRun]] = []

    @contextmanager
    def step(self, step: Step) -> Iterator[TrackedRun]:
        run, status = TrackedRun(links={"mlflow_url": "http://x/1"}), "FAILED"
        try:
            yield run
            status = "FINISHED"
        finally:
            self.steps.append((step, status, run))

    def close_killed(self, dagster_run: str) -> int:
        raise AssertionError(dagster_run)


class Store(dg.IOManager):
    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        if self.fails:
            raise OSError("disk full")

    def load_input(self, context: dg.InputContext) -> object:
        return 20


def run(body: Any, store: Store | None = None, **settings: Any) -> tuple[dg.ExecuteInProcessResult, Recorder]:
    recorder = Recorder()
    asset = tracked_asset(name="thing", **settings)(body)
    resources = {"tracker": recorder, "io_manager": store or Store()}
    return dg.materialize([asset], resources=resources, raise_on_error=False), recorder


def test_the_body_gets_the_run_and_the_materialization_its_link() -> None:
    def body(context: dg.AssetExecutionContext, run: TrackedRun) -> int:
        run.log(metrics={"posts": 3})
        context.add_output_metadata({"posts": 3})
        return 1

    result, recorder = run(body)
    ((step, status, noted),) = recorder.steps
    assert (step.asset, step.partition, step.attempt, status) == ("thing", None, 1, "FINISHED")
    assert step.dagster_run == result.run_id
    assert noted.metrics == {"posts": 3}
    (event,) = result.asset_materializations_for_node("thing")
    assert event.metadata["mlflow_url"] == dg.MetadataValue.url("http://x/1")
    assert event.metadata["posts"].value == 3


def test_bad_input_fails_at_once_with_its_sentence() -> None:
    def body(context: dg.AssetExecutionContext, run: TrackedRun) -> int:
        raise InputError("file x, row 3: fix it.")

    result, recorder = run(body, retry_policy=dg.RetryPolicy(max_retries=3))
    assert not result.success
    assert [status for _, status, _ in recorder.steps] == ["FAILED"]
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data.description == "file x, row 3: fix it."


def test_each_attempt_is_a_run_of_its_own() -> None:
    attempts = []

    def body(context: dg.AssetExecutionContext, run: TrackedRun) -> int:
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("lost")
        return 1

    result, recorder = run(body, retry_policy=dg.RetryPolicy(max_retries=1))
    assert result.success
    assert [(step.attempt, status) for step, status, _ in recorder.steps] == [(1, "FAILED"), (2, "FINISHED")]


def test_an_output_that_cannot_be_stored_fails_the_run() -> None:
    def body(context: dg.AssetExecutionContext, run: TrackedRun) -> int:
        return 1

    result, recorder = run(body, Store(fails=True))
    assert not result.success
    assert [status for _, status, _ in recorder.steps] == ["FAILED"]


@pytest.mark.parametrize("partition", ["deu", "swa"])
def test_partition_and_named_inputs_reach_the_body(partition: str) -> None:
    seen = {}

    def body(context: dg.AssetExecutionContext, up: int, run: TrackedRun, **inputs: Any) -> int:
        seen.update(inputs, up=up)
        return 1

    languages = dg.StaticPartitionsDefinition(["deu", "swa"])

    @dg.asset(partitions_def=languages)
    def up() -> int:
        return 2

    @dg.asset(partitions_def=languages)
    def other() -> int:
        return 3

    recorder = Recorder()
    asset = tracked_asset(name="thing", partitions_def=languages, ins={"other_scores": dg.AssetIn("other")})(body)
    resources = {"tracker": recorder, "io_manager": Store()}
    assert dg.materialize([up, other, asset], partition_key=partition, resources=resources).success
    assert recorder.steps[0][0].name == f"thing[{partition}]"
    assert seen == {"up": 20, "other_scores": 20}


class Kept(dg.IOManager):
    def __init__(self, absent: tuple[str, ...] = ()) -> None:
        self.values: dict[str, object] = {}
        self.absent = absent

    def store(self, asset: str, language: str, value: object) -> None:
        if value == "too much":
            raise OSError("disk full")
        self.values[language] = value

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        raise AssertionError("a run over languages has no output")

    def load_input(self, context: dg.InputContext) -> object:
        return {key: key.upper() for key in context.asset_partition_keys if key not in self.absent}


TAGS = {"dagster/asset_partition_range_start": "deu", "dagster/asset_partition_range_end": "hin"}
ONCE = dg.BackfillPolicy.single_run()


def run_range(
    body: Any, kept: Kept | None = None, instance: dg.DagsterInstance | None = None, **settings: Any
) -> tuple[dg.ExecuteInProcessResult, Recorder, Kept]:
    """Three languages in one run, as a backfill in a single run does it."""
    recorder, kept, languages = Recorder(), kept or Kept(), dg.StaticPartitionsDefinition(["deu", "eng", "hin"])
    upstream = dg.AssetSpec("posts", partitions_def=languages)
    asset = tracked_asset(name="thing", partitions_def=languages, backfill_policy=ONCE, **settings)(body)
    resources = {"tracker": recorder, "io_manager": kept}
    result = dg.materialize([upstream, asset], resources=resources, tags=TAGS, raise_on_error=False, instance=instance)
    return result, recorder, kept


def described(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    return str(failure.step_failure_data.user_failure_data)


def materialized(result: dg.ExecuteInProcessResult) -> list[str | None]:
    return [event.partition for event in result.asset_materializations_for_node("thing")]


def test_a_run_over_languages_tracks_each_and_gives_each_its_own_metadata() -> None:
    def body(context: StepContext, posts: str, run: TrackedRun) -> str:
        context.add_output_metadata({"posts": posts})
        return f"{context.partition_key}:{posts}:{context.last}"

    result, recorder, kept = run_range(body)
    assert result.success
    assert kept.values == {"deu": "deu:DEU:False", "eng": "eng:ENG:False", "hin": "hin:HIN:True"}
    assert [(step.partition, status) for step, status, _ in recorder.steps] == [
        ("deu", "FINISHED"), ("eng", "FINISHED"), ("hin", "FINISHED"),
    ]  # fmt: skip
    events = {event.partition: event.metadata for event in result.asset_materializations_for_node("thing")}
    assert {key: metadata["posts"].value for key, metadata in events.items()} == {
        "deu": "DEU",
        "eng": "ENG",
        "hin": "HIN",
    }
    assert all(metadata["mlflow_url"] == dg.MetadataValue.url("http://x/1") for metadata in events.values())


def test_one_bad_language_is_named_after_the_others_are_done() -> None:
    def body(context: StepContext, posts: str, run: TrackedRun) -> str:
        if context.partition_key == "eng":
            raise InputError("no posts: add some.")
        return posts

    result, recorder, kept = run_range(body)
    assert not result.success
    assert [(step.partition, status) for step, status, _ in recorder.steps] == [
        ("deu", "FINISHED"), ("eng", "FAILED"), ("hin", "FINISHED"),
    ]  # fmt: skip
    assert "1 of 3 languages failed (eng: no posts: add some.)" in described(result)
    assert materialized(result) == ["deu", "hin"] and set(kept.values) == {"deu", "hin"}


@pytest.mark.parametrize("error", [OSError("disk full"), MemoryError(), RuntimeError("CUDA out of memory")])
def test_whatever_goes_wrong_with_one_language_does_not_keep_the_others_from_it(error: Exception) -> None:
    def body(context: StepContext, posts: str, run: TrackedRun) -> str:
        if context.partition_key == "deu":
            raise error
        return posts

    result, recorder, kept = run_range(body)
    assert not result.success and f"deu: {type(error).__name__}: {error}" in described(result)
    assert [status for _, status, _ in recorder.steps] == ["FAILED", "FINISHED", "FINISHED"]
    assert materialized(result) == ["eng", "hin"] and set(kept.values) == {"eng", "hin"}


def test_a_value_that_cannot_be_stored_is_its_languages_fault_alone() -> None:
    def body(context: StepContext, posts: str, run: TrackedRun) -> str:
        return "too much" if context.partition_key == "eng" else posts

    result, recorder, _ = run_range(body)
    assert [status for _, status, _ in recorder.steps] == ["FINISHED", "FAILED", "FINISHED"]
    assert materialized(result) == ["deu", "hin"] and "eng: OSError: disk full" in described(result)


def test_a_language_whose_posts_are_not_there_is_named_and_the_others_are_done() -> None:
    seen = {}

    def body(context: StepContext, posts: str, run: TrackedRun) -> str:
        seen[context.partition_key] = context.last
        return posts

    result, _, _ = run_range(body, Kept(absent=("hin",)))
    assert "1 of 3 languages failed (hin: posts is not there: materialize it first.)" in described(result)
    assert seen == {"deu": False, "eng": True} and materialized(result) == ["deu", "eng"]


def test_each_language_is_materialized_when_it_is_done_and_not_at_the_end() -> None:
    """A process that is killed in the last language leaves the others stored, and Dagster knows of them."""
    found = {}

    def body(context: StepContext, posts: str, run: TrackedRun) -> str:
        found[context.partition_key] = instance.get_materialized_partitions(dg.AssetKey("thing"))
        return posts

    with dg.instance_for_test() as instance:
        result, _, _ = run_range(body, instance=instance, code_version="7")
        assert result.success
        assert found == {"deu": set(), "eng": {"deu"}, "hin": {"deu", "eng"}}
        assert instance.get_materialized_partitions(dg.AssetKey("thing")) == {"deu", "eng", "hin"}
        event = instance.get_latest_materialization_event(dg.AssetKey("thing"))
    assert materialized(result) == ["deu", "eng", "hin"]  # once each
    assert event is not None and event.asset_materialization is not None
    assert event.asset_materialization.tags is not None
    assert event.asset_materialization.tags["dagster/code_version"] == "7"


def test_a_run_that_is_stopped_leaves_no_tracked_run_open() -> None:
    def body(context: StepContext, posts: str, run: TrackedRun) -> str:
        raise KeyboardInterrupt

    recorder, languages = Recorder(), dg.StaticPartitionsDefinition(["deu", "eng", "hin"])
    upstream = dg.AssetSpec("posts", partitions_def=languages)
    asset = tracked_asset(name="thing", partitions_def=languages, backfill_policy=ONCE)(body)
    with pytest.raises(BaseException):  # noqa: B017 - Dagster has its own name for it
        dg.materialize([upstream, asset], resources={"tracker": recorder, "io_manager": Kept()}, tags=TAGS)
    assert [(step.partition, status) for step, status, _ in recorder.steps] == [("deu", "FAILED")]
