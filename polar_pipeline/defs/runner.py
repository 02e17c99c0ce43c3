"""`polar run`: the jobs of the definitions, executed in worker processes against the home's own instance.

Each worker loads the definitions once and then executes one language after the other, each as a run of its own that the UI
shows like any other. What does not belong here: printing, and anything that computes.
"""

import functools
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path

import dagster as dg

from polar_pipeline.decision.record import Decision
from polar_pipeline.defs.build import build_defs
from polar_pipeline.defs.instance import open_instance, prepare_home
from polar_pipeline.defs.jobs import ADAPTERS_JOB, LANGUAGE_JOB, POOLED_JOB, PREPARE_JOB, REPORT_JOB
from polar_pipeline.defs.orphans import close_orphans, owner_tags
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.resources import make_tracker
from polar_pipeline.errors import InputError

# Steps say what they do in the UI; the terminal shows one line per language.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
_PATIENCE = 15.0  # seconds that workers have to end when they are asked to
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """How one run ended. `bad_input` tells a mistake in data or settings from a fault of the program."""

    job: str
    language: str | None
    run_id: str
    decision: Decision | None = None
    error: str = ""
    bad_input: bool = False


def run_languages(project: Project, profile: str, codes: list[str], processes: int) -> Iterator[Outcome]:
    """Execute the language job for `codes`, `processes` at a time, and yield outcomes as they come.

    Results do not depend on `processes` or on the order of `codes`: every worker keeps to one thread.
    """
    environment = prepare_home(project.home)
    os.environ.update(environment)  # for this process, and for the workers, which inherit it
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    with open_instance(project.home.dagster) as instance:
        close_orphans(instance, project.home, make_tracker(project))
    pool = ProcessPoolExecutor(min(processes, len(codes)), mp_context=get_context("spawn"), initializer=_leave_ctrl_c)
    try:
        failed = _pooled_first(project, profile, pool) if project.profile.trains_pooled else []
        yield from failed
        if project.profile.trains_in_turn and not failed:
            _adapters_first(project, profile, codes, pool)
        for future in as_completed([] if failed else [pool.submit(_run_language, profile, code) for code in codes]):
            yield future.result()
    except BaseException:  # Ctrl-C too: what has not started is dropped, and what runs is ended
        _end(pool)
        raise
    pool.shutdown()


def _leave_ctrl_c() -> None:
    """A terminal sends Ctrl-C to all processes. Workers, and what they start, leave it to the first one, which ends them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _end(pool: ProcessPoolExecutor) -> None:
    """End the workers: asked to, so that Dagster and MLflow note it, and after a while without asking."""
    workers = active_children()
    pool.shutdown(wait=False, cancel_futures=True)
    try:
        for worker in workers:
            worker.terminate()
        end = time.monotonic() + _PATIENCE
        for worker in workers:
            worker.join(max(end - time.monotonic(), 0))
    finally:  # a second Ctrl-C waits no longer
        for worker in workers:
            worker.kill()


def _pooled_first(project: Project, profile: str, pool: ProcessPoolExecutor) -> list[Outcome]:
    """Prepare the posts of all languages and train what is trained on all of them. Returns what failed."""
    prepared = [pool.submit(_run_job, profile, PREPARE_JOB, code) for code in project.profile.codes]
    failed = [outcome for future in as_completed(prepared) if (outcome := future.result()).error]
    if failed:
        return failed
    outcome = pool.submit(_run_job, profile, POOLED_JOB, None).result()
    return [outcome] if outcome.error else []


def _adapters_first(project: Project, profile: str, codes: list[str], pool: ProcessPoolExecutor) -> None:
    """Train the adapters of all `codes` of one base, then those of the next, so that each base is loaded once.

    What fails here fails again, and is told, when its language is run; what succeeds is found there.
    """
    for future in as_completed([pool.submit(_run_job, profile, PREPARE_JOB, code) for code in codes]):
        future.result()
    places = sorted(project.profile.codes.index(code) for code in codes)
    # Dagster knows ranges of partitions, so each unbroken run of languages is one
    breaks = [place for place in range(1, len(places)) if places[place] != places[place - 1] + 1]
    for first, after in zip([0, *breaks], [*breaks, len(places)], strict=True):
        ends = project.profile.codes[places[first]], project.profile.codes[places[after - 1]]
        pool.submit(_run_job, profile, ADAPTERS_JOB, None, ends).result()


def run_report(project: Project) -> Outcome:
    """Execute the report job in this process."""
    os.environ.update(prepare_home(project.home))
    return _execute(build_defs(project), REPORT_JOB, None)


def _run_language(profile: str, code: str) -> Outcome:
    return _run_job(profile, LANGUAGE_JOB, code)


def _run_job(profile: str, job: str, code: str | None, ends: tuple[str, str] | None = None) -> Outcome:
    return _execute(_definitions(profile), job, code, ends)


@functools.cache
def _definitions(profile: str) -> dg.Definitions:
    """Loaded once per worker process, not once per language."""
    return build_defs(Project.load(profile), keep_bases=True)


@functools.lru_cache(maxsize=1)
def _instance(folder: str) -> dg.DagsterInstance:
    """Opened once per process, because each opening checks the schema of every database."""
    return open_instance(Path(folder))


def _execute(defs: dg.Definitions, name: str, code: str | None, ends: tuple[str, str] | None = None) -> Outcome:
    """Run a job for one language, for the range of languages between `ends`, or for none."""
    job = defs.resolve_job_def(name)
    many = dict(zip(_RANGE, ends, strict=True)) if ends else {}
    result = job.execute_in_process(
        run_config=_QUIET,
        instance=_instance(os.environ["DAGSTER_HOME"]),
        partition_key=code,
        raise_on_error=False,
        tags=owner_tags() | many,
    )
    if not result.success:
        error, bad_input = _error(result)
        return Outcome(name, code, result.run_id, error=error, bad_input=bad_input)
    decision = result.output_for_node("thresholds") if name == LANGUAGE_JOB else None
    return Outcome(name, code, result.run_id, decision=decision)


def _error(result: dg.ExecuteInProcessResult) -> tuple[str, bool]:
    refused = [
        f"{check.asset_key.to_user_string()} fails the check {check.check_name}: {check.description}"
        for check in result.get_asset_check_evaluations()
        if check.blocking and not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    ]
    if refused:
        return "; ".join(refused), True
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data and data.user_failure_data.description:
                return data.user_failure_data.description, True
            message = data.error.message.strip() if data.error else "no message"
            cause = data.error.cause if data.error else None
            if cause and cause.cls_name == InputError.__name__:  # raised while an input was loaded
                return cause.message.strip().partition(": ")[2], True
            return f"{event.step_key} failed: {cause.message.strip() if cause else message}", False
    return "the run failed before its first step; the Dagster UI has its log", False
