"""`tracked_asset`: an asset whose body runs inside a tracked run, and whose value is stored with what it was made from.

The step stores the value itself and then reports its hash to Dagster as the data version. The tracked run is closed
with the step, so that a failure to store marks it FAILED as well. An `InputError` becomes a failure that is not
retried, because bad input stays bad. Checks run in the same step: each costs an event, not a step. A run over several
languages handles one after the other, and each is stored and materialized as soon as it is done.
"""

import inspect
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.definitions import data_version as versions

from polar_pipeline.backbones.base import Progress
from polar_pipeline.defs.io_managers import Loaded, OutputsIOManager
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.errors import EnvironmentProblem
from polar_pipeline.storage.files import known_problem
from polar_pipeline.storage.outputs import Check, Provenance, output_name
from polar_pipeline.tracking.base import TrackedRun, TrackedStep

REUSE_TAG = "polar/reuse"  # on runs of `polar run`: a step whose output would come out the same is not computed again
OWNERS = ["team:polar-pipeline"]
_QUIET_SECONDS = 30.0  # between two lines on the progress of a step in its log
Body = Callable[..., Any]
Checks = Callable[..., Iterator[Check]]


@dataclass
class StepContext:
    """What a body sees of Dagster: its language, a log, what an operator changed for this run, and a place for
    metadata.
    """

    log: dg.DagsterLogManager
    language: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    watcher: Callable[[Any], None] = lambda _: None  # takes how far the step is
    last: bool = True  # whether no other language follows in this step
    metadata: dict[str, Any] = field(default_factory=dict)
    files: list[Any] = field(default_factory=list)  # paths of further files that belong to the output
    changed: dict[str, Any] = field(default_factory=dict)  # settings that this run had instead of the profile's
    incomplete: str = ""  # why another run would give more, such as a cap on dollars

    @property
    def partition_key(self) -> str:
        """The language that is computed."""
        if self.language is None:
            raise ValueError("this asset has no languages")
        return self.language

    def add_output_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Metadata of this language's materialization."""
        self.metadata |= metadata


class StepProgress(NamedTuple):
    """`done` of `total` units of one asset and language; `seconds` since the step began."""

    asset: str
    language: str | None
    done: float
    total: float
    unit: str
    seconds: float

    @property
    def line(self) -> str:
        """`deu  gemma_adapter  42%  1,200 tokens/s, about 310 s left`."""
        rate = self.done / self.seconds if self.seconds > 0 else 0.0
        left = f", about {max(self.total - self.done, 0) / rate:.0f} s left" if rate > 0 else ""
        share = self.done / self.total if self.total else 1.0
        return f"{self.language or 'all'}  {self.asset}  {share:.0%}  {rate:,.0f} {self.unit}/s{left}"


def nobody(progress: StepProgress) -> None:
    """Watches nothing; the run's log has a line now and then anyway."""


def reporting(context: StepContext, asset: str, run: TrackedRun | None) -> Progress:
    """The `Progress` of a step: lines to its log, figures to its tracked run, and how far it is to the watcher."""
    started = last_line = time.monotonic()

    def advance(done: float, total: float, unit: str) -> None:
        nonlocal last_line
        now = time.monotonic()
        progress = StepProgress(asset, context.language, done, total, unit, now - started)
        context.watcher(progress)
        if now - last_line >= _QUIET_SECONDS:
            last_line = now
            context.log.info(progress.line)

    return Progress(context.log.info, run.measure if run else None, advance)


def tracked_asset(
    lineage: Lineage,
    *,
    ins: Mapping[str, str] | None = None,
    deps: tuple[str, ...] = (),
    checks: Checks | None = None,
    check_names: Mapping[str, str] | None = None,
    **settings: Any,
) -> Callable[[Body], dg.AssetsDefinition]:
    """`@dg.asset(**settings)` with the key `[profile, name]`, for a body `(context: StepContext, <upstream>..., run) ->
    value`. Code version and partitions are those of its node in `lineage`.

    `ins` maps parameters to assets where the names differ, `deps` names assets that the body reads by itself. `checks`
    is called as `(context, value, **upstream)` after the body and yields a `Check` for each of `check_names` (name ->
    description).
    """

    def decorate(body: Body) -> dg.AssetsDefinition:
        profile, name = lineage.project.profile.name, settings.pop("name", body.__name__)
        partitions = dg.StaticPartitionsDefinition(lineage.project.codes) if lineage.nodes[name].partitioned else None
        version = lineage.code_version(name)
        signature = inspect.signature(body)
        given = [p for key, p in signature.parameters.items() if key != "run" and p.kind is not p.VAR_KEYWORD]
        names = {p.name: p.name for p in given[1:]} | dict(ins or {})
        key = dg.AssetKey([profile, name])
        maker = _Maker(key, body, checks)

        def compute(context: dg.AssetExecutionContext, **inputs: Loaded) -> Any:
            partitioned = context.has_partition_key or context.has_partition_key_range
            keys = list(context.partition_keys) if partitioned else []
            if len(keys) > 1:
                yield from maker.each(context, keys, inputs)
            else:
                yield from maker.one(context, keys[0] if keys else None, inputs)

        compute.__name__, compute.__doc__ = name, body.__doc__
        with warnings.catch_warnings():
            # backfill policies and partitioned checks are called beta and preview in this release
            warnings.simplefilter("ignore", dg.BetaWarning)
            warnings.simplefilter("ignore", dg.PreviewWarning)
            asset: dg.AssetsDefinition = dg.asset(
                key=key,
                ins={one: dg.AssetIn(key=[profile, upstream]) for one, upstream in names.items()},
                deps=[dg.AssetKey([profile, upstream]) for upstream in deps],
                check_specs=[
                    dg.AssetCheckSpec(one, asset=key, description=text, blocking=True, partitions_def=partitions)
                    for one, text in (check_names or {}).items()
                ],
                required_resource_keys={"tracker", "outputs", "watcher"},
                io_manager_key="outputs",
                owners=OWNERS,
                output_required="backfill_policy" not in settings,
                partitions_def=partitions,
                code_version=version,
                tags={"polar/profile": profile, "polar/fingerprint": version},
                **settings,
            )(compute)
        return asset

    return decorate


@dataclass(frozen=True)
class _Maker:
    """How one asset's outputs are made, stored and reported."""

    key: dg.AssetKey
    body: Body
    checks: Checks | None

    @property
    def name(self) -> str:
        return self.key.path[-1]

    def one(self, context: dg.AssetExecutionContext, language: str | None, inputs: dict[str, Loaded]) -> Iterator[Any]:
        """The output of one language, or of none; what is current is reported again without being computed."""
        outputs: OutputsIOManager = context.resources.outputs
        reuse = REUSE_TAG in context.run.tags or context.run.parent_run_id or context.retry_number
        try:
            if reuse and (found := outputs.lineage.unchanged(self.name, language)):
                yield from self._report(context, found, self._earlier_metadata(context, language))
                return
            with self._made(context, language, inputs) as (found, metadata):
                yield from self._report(context, found, metadata)
        except Exception as error:
            if (problem := known_problem(error)) is None:
                raise
            raise dg.Failure(str(problem), allow_retries=False) from problem

    def each(self, context: dg.AssetExecutionContext, keys: list[str], inputs: dict[str, Loaded]) -> Iterator[Any]:
        """Several languages, each in a tracked run of its own.

        Raises dg.Failure that names every language that failed.
        """
        missing = {key: [found.missing[key] for found in inputs.values() if key in found.missing] for key in keys}
        failed = {key: " ".join(reasons) for key, reasons in missing.items() if reasons}
        ready = [key for key in keys if key not in failed]
        unexpected, broken = False, None
        for key in ready:
            try:
                with self._made(context, key, inputs, last=key == ready[-1]) as (found, metadata):
                    tags = _provenance_tags(context, self.key, key, found)
                    yield dg.AssetMaterialization(self.key, partition=key, metadata=metadata, tags=tags)
            except Exception as error:  # whatever it is, it is this language's: the step fails below
                if problem := known_problem(error):
                    failed[key], broken = str(problem), problem if isinstance(problem, EnvironmentProblem) else broken
                    context.log.error(f"{key}: {problem}")
                else:
                    failed[key], unexpected = f"{type(error).__name__}: {error}", True
                    context.log.exception(f"{key}: {error}")
        if failed:
            named = "; ".join(f"{key}: {text}" for key, text in failed.items())
            text = f"{len(failed)} of {len(keys)} languages failed ({named})"
            raise dg.Failure(text, allow_retries=unexpected) from broken

    @contextmanager
    def _made(
        self, context: dg.AssetExecutionContext, language: str | None, inputs: dict[str, Loaded], last: bool = True
    ) -> Iterator[tuple[Provenance, dict[str, Any]]]:
        """Compute and store an output; gives what it was made from and its metadata while its tracked run is open."""
        outputs: OutputsIOManager = context.resources.outputs
        options = context.op_execution_context.op_config or {}
        step = StepContext(context.log, language, options, context.resources.watcher, last)
        with context.resources.tracker.step(_tracked_step(context, language)) as run:
            read = {name: sha for one in inputs.values() for name, sha in one.sha256(language).items()}
            made_from = outputs.made_from(self.name, language, read)  # before the body reads files from outside
            upstream = {name: one.value(language) for name, one in inputs.items()}
            value = self.body(step, **upstream, run=run)
            checks = list(self.checks(step, value, **upstream)) if self.checks else []
            made_from["settings"] = _merged(made_from["settings"], step.changed)
            made_from |= {"files": step.files, "checks": checks, "incomplete": step.incomplete}
            found = outputs.lineage.outputs.write(self.name, language, value, **made_from)
            links = {key: dg.MetadataValue.url(at) if key.endswith("url") else at for key, at in run.links.items()}
            yield found, step.metadata | links

    def _report(self, context: dg.AssetExecutionContext, found: Provenance, metadata: dict[str, Any]) -> Iterator[Any]:
        results = [
            dg.AssetCheckResult(
                passed=not check.complaint,
                check_name=check.name,
                severity=dg.AssetCheckSeverity.WARN if check.warning else dg.AssetCheckSeverity.ERROR,
                description=check.complaint or None,
            )
            for check in found.checks
        ]
        yield dg.MaterializeResult(
            metadata=metadata,
            data_version=dg.DataVersion(found.sha256),
            tags=_source_tags(context, self.name, found),
            check_results=results,
        )

    def _earlier_metadata(self, context: dg.AssetExecutionContext, language: str | None) -> dict[str, Any]:
        """What the last materialization showed, so that the page of a reused output stays whole."""
        record = context.instance.get_latest_data_version_record(self.key, False, language)
        event = record.event_log_entry.asset_materialization if record else None
        return {**(event.metadata if event else {}), "reused": True}


def _merged(settings: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with some of them changed."""
    found = dict(settings)
    for name, value in changes.items():
        found[name] = _merged(found[name], value) if isinstance(value, Mapping) else value
    return found


def _tracked_step(context: dg.AssetExecutionContext, language: str | None) -> TrackedStep:
    version = context.assets_def.code_versions_by_key[context.asset_key]
    tags = {"language": language or "", "fingerprint": version or ""}
    return TrackedStep(
        asset=context.asset_key.path[-1],
        partition=language,
        dagster_run=context.run.run_id,
        root_run=context.run.root_run_id or context.run.run_id,
        attempt=context.retry_number + 1,
        backfill=context.run.tags.get("dagster/backfill"),
        tags={name: value for name, value in tags.items() if value},
    )


def _source_tags(context: dg.AssetExecutionContext, name: str, found: Provenance) -> dict[str, str]:
    """For what is made from files outside: the observation of exactly those, so that Dagster compares with what was
    read.
    """
    outputs: OutputsIOManager = context.resources.outputs
    source = outputs.source_of(name)
    if source is None or found.language is None:
        return {}
    return _input_tags(source, *outputs.observe(context.instance, found.language, found.sources))


def _provenance_tags(
    context: dg.AssetExecutionContext, key: dg.AssetKey, language: str, found: Provenance
) -> dict[str, str]:
    """What Dagster itself tags the materialization of one language with: versions of code, data and every input."""
    tags = {
        versions.CODE_VERSION_TAG: context.assets_def.code_versions_by_key[key] or "",
        versions.DATA_VERSION_TAG: found.sha256,
        versions.DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
    }
    graph = context.job_def.asset_layer.asset_graph
    for parent in graph.get(key).parent_keys:
        partition = language if graph.get(parent).is_partitioned else None
        record = context.instance.get_latest_data_version_record(parent, False, partition)
        if record:
            version = versions.extract_data_version_from_entry(record.event_log_entry)
            read = found.inputs.get(output_name(parent.path[-1], partition))
            tags |= _input_tags(parent, read or (version.value if version else ""), record.storage_id)
    return tags


def _input_tags(key: dg.AssetKey, version: str, storage: int) -> dict[str, str]:
    return {versions.get_input_data_version_tag(key): version, versions.get_input_event_pointer_tag(key): str(storage)}
