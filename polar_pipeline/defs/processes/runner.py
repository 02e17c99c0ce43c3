"""`polar run`: the jobs of the definitions, executed in worker processes against the home's own instance.

Each worker loads the definitions once and then executes one language after the other, each as a run of its own that the
UI shows like any other. What does not belong here: printing, and anything that computes.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg

from polar_pipeline.defs.build import build_defs
from polar_pipeline.defs.instance import open_instance, prepare_home
from polar_pipeline.defs.jobs import ADAPTERS_JOB, LANGUAGE_JOB, POOLED_JOB, PREPARE_JOB, REPORT_JOB
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.orphans import close_orphans, owner_tags
from polar_pipeline.defs.processes.workers import ONE_THREAD, Event, Finished, Killed, Sent, Started, Workers
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.resources import make_tracker
from polar_pipeline.defs.tracked_asset import REUSE_TAG, StepProgress, nobody
from polar_pipeline.errors import EnvironmentProblem, ExitCode, InputError
from polar_pipeline.storage.files import known_problem

# Steps say what they do in the UI; the terminal shows one line per language.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


class Task(NamedTuple):
    """One run: a job for one language, for the range between `ends`, or for none; `assets` of it, or all."""

    profile: str
    job: str
    language: str | None = None
    ends: tuple[str, str] | None = None
    assets: tuple[str, ...] = ()
    force: bool = False


class Outcome(NamedTuple):
    """How one run ended. `exit_code` tells a mistake in data or settings, or a broken machine, from other failures."""

    job: str
    language: str | None
    run_id: str = ""
    error: str = ""
    exit_code: ExitCode = ExitCode.DONE
    seconds: float = 0.0


def run_languages(
    project: Project, stale: dict[str, list[str]], processes: int, force: bool = False
) -> Iterator[StepProgress | Started | Outcome]:
    """Make the `stale` assets of each language, `processes` languages at a time; yields progress, and outcomes with
    their seconds.

    With `force`, everything of these languages is computed again. Results do not depend on `processes` or on the order
    of languages: every worker keeps to one thread. A worker that is killed costs its language; the others go on.
    """
    prepare_environment(project)
    _close_orphans(project)
    with Workers(min(processes, len(stale)), TaskRunner()) as workers:
        failed = False
        for event in _before_languages(project, stale, workers, force):
            yield from _passed_on(project, event)
            if isinstance(event, Killed | Finished) and event.task.job == POOLED_JOB:
                failed |= isinstance(event, Killed) or bool(event.result.error)
        tasks = [
            Task(project.source, LANGUAGE_JOB, code, assets=() if force else tuple(assets), force=force)
            for code, assets in stale.items()
        ]
        for event in workers.run([] if failed else tasks):
            yield from _passed_on(project, event)


def run_report(project: Project, force: bool = False) -> Outcome:
    """Execute the report job in this process."""
    prepare_environment(project)
    with closing(TaskRunner()) as runner:
        return runner(Task(project.source, REPORT_JOB, force=force), nobody)


def prepare_environment(project: Project) -> None:
    """Make the home, and set the variables that this process and its workers need."""
    os.environ.update(prepare_home(project.home))
    os.environ.update(ONE_THREAD)


def _close_orphans(project: Project) -> None:
    """Fail what processes that are gone left unfinished in Dagster and MLflow."""
    with open_instance(project.home.dagster) as instance:
        close_orphans(instance, project.home, make_tracker(project))


def _passed_on(project: Project, event: Event) -> Iterator[StepProgress | Started | Outcome]:
    """What the caller hears of an event; a run that lost its process is closed first.

    How the jobs before those of the languages ended is not passed on: the language's own job does what they did not.
    """
    reported = event.task.job in (LANGUAGE_JOB, POOLED_JOB)
    if isinstance(event, Sent):
        yield event.message
    elif isinstance(event, Started):
        yield event
    elif isinstance(event, Killed):
        _close_orphans(project)
        if reported:
            reason, exit_code = event.reason, ExitCode.SOME_FAILED
            yield Outcome(event.task.job, event.task.language, error=reason, exit_code=exit_code)
    elif reported:
        yield event.result._replace(seconds=event.seconds)


def _before_languages(project: Project, stale: dict[str, list[str]], workers: Workers, force: bool) -> Iterator[Event]:
    """What is done for several languages at once: pooled adapters, and adapters that should share one load of their
    base.
    """
    profile, pooled = project.profile, [name for name in Lineage(project).nodes if name.endswith("_pooled_adapter")]
    if pooled and (force or any(Lineage(project).why_not_current(name, None) for name in pooled)):
        yield from workers.run([Task(project.source, PREPARE_JOB, code) for code in project.codes])
        yield from workers.run([Task(project.source, POOLED_JOB, force=force)])
    if profile.trains_in_turn:
        names = {f"{entry.name}_adapter" for entry in profile.backbones}
        codes = [code for code, assets in stale.items() if force or names & set(assets)]
        yield from workers.run([Task(project.source, PREPARE_JOB, code) for code in codes])
        for ends in _ranges(project.codes, codes):
            yield from workers.run([Task(project.source, ADAPTERS_JOB, ends=ends, force=force)])


def _ranges(order: list[str], codes: list[str]) -> Iterator[tuple[str, str]]:
    """The ends of each unbroken run of languages: Dagster knows ranges of partitions."""
    places = sorted(order.index(code) for code in codes)
    for _, pairs in groupby(enumerate(places), lambda pair: pair[1] - pair[0]):  # the same as long as places follow
        unbroken = [order[place] for _, place in pairs]
        yield unbroken[0], unbroken[-1]


class TaskRunner:
    """Executes tasks in this process, one at a time; definitions and instance are loaded once, by the first."""

    def __init__(self) -> None:
        self._defs: dict[str, dg.Definitions] = {}
        self._instance: dg.DagsterInstance | None = None  # each opening checks the schema of every database
        self._send: Callable[[StepProgress], None] = nobody

    def __call__(self, task: Task, send: Callable[[Any], None]) -> Outcome:
        """Execute a task's run. `send` takes the progress of its steps."""
        self._send = send
        try:
            return self._execute(task)
        except Exception as error:  # outside of any step, as in Dagster's bookkeeping
            if (problem := known_problem(error)) is None:
                raise
            return Outcome(task.job, task.language, error=str(problem), exit_code=problem.exit_code)

    def _execute(self, task: Task) -> Outcome:
        self._instance = self._instance or open_instance(Path(os.environ["DAGSTER_HOME"]))
        project = Project.load(task.profile)
        job = self._definitions(project).resolve_job_def(task.job)
        tags = owner_tags() | ({} if task.force else {REUSE_TAG: "true"})
        tags |= dict(zip(_RANGE, task.ends, strict=True)) if task.ends else {}
        tags |= {"polar/language": task.language} if task.language else {}
        result = job.execute_in_process(
            run_config=_QUIET | ({"ops": _forced(job)} if task.force else {}),
            instance=self._instance,
            partition_key=task.language,
            asset_selection=[dg.AssetKey([project.profile.name, name]) for name in task.assets] or None,
            raise_on_error=False,
            tags=tags,
        )
        error, exit_code = ("", ExitCode.DONE) if result.success else _error(result)
        return Outcome(task.job, task.language, result.run_id, error, exit_code)

    def close(self) -> None:
        """Close the instance, which moves its write-ahead logs into the databases."""
        if self._instance is not None:
            self._instance.dispose()

    def _definitions(self, project: Project) -> dg.Definitions:
        if project.source not in self._defs:
            watcher = dg.ResourceDefinition.hardcoded_resource(lambda progress: self._send(progress))
            self._defs[project.source] = build_defs(project, {"watcher": watcher}, keep_bases=True)
        return self._defs[project.source]


def _forced(job: dg.JobDefinition) -> dict[str, Any]:
    """Run config that has every step train again that could find something finished."""
    schemas = {name: node.definition.config_schema for name, node in job.graph.node_dict.items()}
    return {
        name: {"config": {"force": True}}
        for name, schema in schemas.items()
        if schema is not None and "force" in getattr(schema.config_type, "fields", {})
    }


def _error(result: dg.ExecuteInProcessResult) -> tuple[str, ExitCode]:
    """Why a run failed, in words, and the exit code for it."""
    refused = [
        f"{check.asset_key.path[-1]} fails the check {check.check_name}: {check.description}"
        for check in result.get_asset_check_evaluations()
        if check.blocking and not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    ]
    if refused:
        return "; ".join(refused), ExitCode.WRONG_INPUT
    failure = next((event for event in result.all_events if event.is_step_failure), None)
    if failure is None:
        return "the run failed before its first step; the Dagster UI has its log", ExitCode.SOME_FAILED
    data = failure.step_failure_data
    cause = data.error.cause if data.error else None
    kinds = {kind.__name__: kind.exit_code for kind in (InputError, EnvironmentProblem)}
    exit_code = kinds.get(str(cause.cls_name)) if cause else None
    if data.user_failure_data and data.user_failure_data.description:
        return data.user_failure_data.description, exit_code or ExitCode.WRONG_INPUT
    if cause and exit_code:  # raised while an input was loaded
        return cause.message.strip().partition(": ")[2], exit_code
    said = cause or data.error
    return f"{failure.step_key} failed: {said.message.strip() if said else 'no message'}", ExitCode.SOME_FAILED
