"""`tracked_asset`: an asset whose body runs inside a tracked run and gets it as the argument `run`.

The run is closed with the step: the output is yielded inside the tracker's block, so that a failure to store it marks the
run FAILED as well. An `InputError` becomes a failure that is not retried, because bad input stays bad. In a run over several
languages the body is called for one after the other, each in a tracked run of its own; one that fails does not keep the others from it.
"""

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg

from polar_pipeline.errors import InputError
from polar_pipeline.tracking.base import Step


class StepContext:
    """What a body sees of Dagster: its language, a log, and a place for metadata."""

    def __init__(
        self, context: dg.AssetExecutionContext, partition: str | None, many: bool = False, last: bool = True
    ) -> None:
        self._context, self._partition, self._many = context, partition, many
        self.last = last  # whether no other language follows in this step
        self.log = context.log

    @property
    def partition_key(self) -> str:
        """The language that is computed."""
        if self._partition is None:
            raise ValueError("this asset has no partitions")
        return self._partition

    def add_output_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Metadata of this language's materialization."""
        if self._many:
            self._context.add_asset_metadata(metadata, partition_key=self._partition)
        else:
            self._context.add_output_metadata(metadata)


def tracked_asset(
    before: Callable[..., None] | None = None, **settings: Any
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`@dg.asset(**settings)` for a body `(context, <upstream>..., run) -> value`.

    `before` is called `(log, <upstream by language>...)` once in a run over several languages, before the body is.
    """

    def decorate(body: Callable[..., Any]) -> dg.AssetsDefinition:
        @functools.wraps(body)
        def compute(context: dg.AssetExecutionContext, **inputs: Any) -> Iterator[dg.Output[Any]]:
            partitioned = context.has_partition_key or context.has_partition_key_range
            keys = list(context.partition_keys) if partitioned else []
            if len(keys) > 1:
                if before:
                    before(context.log, **inputs)
                yield dg.Output(_each(body, context, keys, inputs))
                return
            key = keys[0] if keys else None
            with context.resources.tracker.step(_step(context, key)) as run:
                try:
                    value = body(StepContext(context, key), **inputs, run=run)
                except InputError as error:
                    raise dg.Failure(str(error), allow_retries=False) from error
                yield dg.Output(value, metadata=_links(run.links))

        signature = inspect.signature(body)
        parameters = [parameter for name, parameter in signature.parameters.items() if name != "run"]
        compute.__signature__ = signature.replace(parameters=_for_dagster(parameters), return_annotation=Any)  # type: ignore[attr-defined]
        compute.__annotations__ = {
            p.name: p.annotation for p in _for_dagster(parameters) if p.annotation is not p.empty
        }
        del compute.__wrapped__  # Dagster would look through it at the body's own signature
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)  # backfill policies are called beta in this release
            asset: dg.AssetsDefinition = dg.asset(required_resource_keys={"tracker"}, **settings)(compute)
        return asset

    return decorate


def _each(
    body: Callable[..., Any], context: dg.AssetExecutionContext, keys: list[str], inputs: dict[str, Any]
) -> dict[str, Any]:
    """Values by language. Raises dg.Failure that names every language that failed, after the others are done."""
    values, failed = {}, {}
    for key in keys:
        mine = {name: value[key] for name, value in inputs.items()}
        step = StepContext(context, key, many=True, last=key == keys[-1])
        try:
            with context.resources.tracker.step(_step(context, key)) as run:
                values[key] = body(step, **mine, run=run)
                step.add_output_metadata(_links(run.links))
        except InputError as error:
            failed[key] = str(error)
            context.log.error(f"{key}: {error}")
    if failed:
        named = "; ".join(f"{key}: {error}" for key, error in failed.items())
        raise dg.Failure(f"{len(failed)} of {len(keys)} languages failed ({named})", allow_retries=False)
    return values


def _for_dagster(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """The body's parameters, with types that hold for one language and for several."""
    first, *others = parameters
    annotated = [
        parameter if parameter.kind is parameter.VAR_KEYWORD else parameter.replace(annotation=Any)
        for parameter in others
    ]
    return [first.replace(annotation=dg.AssetExecutionContext), *annotated]


def _links(links: dict[str, str]) -> dict[str, Any]:
    return {key: dg.MetadataValue.url(link) if key.endswith("url") else link for key, link in links.items()}


def _step(context: dg.AssetExecutionContext, partition: str | None) -> Step:
    tags = context.run.tags
    return Step(
        asset=context.asset_key.to_user_string(),
        partition=partition,
        dagster_run=context.run.run_id,
        root_run=context.run.root_run_id or context.run.run_id,
        attempt=context.retry_number + 1,
        backfill=tags.get("dagster/backfill"),
    )
