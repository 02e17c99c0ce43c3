"""`tracked_asset`: an asset whose body runs inside a tracked run and gets it as the argument `run`.

The run is closed with the step: the output is yielded inside the tracker's block, so that a failure to store it marks the
run FAILED as well. An `InputError` becomes a failure that is not retried, because bad input stays bad.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from polar_pipeline.errors import InputError
from polar_pipeline.tracking.base import Step


def tracked_asset(**settings: Any) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`@dg.asset(**settings)` for a body `(context, <upstream>..., run) -> value`."""

    def decorate(body: Callable[..., Any]) -> dg.AssetsDefinition:
        @functools.wraps(body)
        def compute(context: dg.AssetExecutionContext, **inputs: Any) -> Iterator[dg.Output[Any]]:
            with context.resources.tracker.step(_step(context)) as run:
                try:
                    value = body(context, **inputs, run=run)
                except InputError as error:
                    raise dg.Failure(str(error), allow_retries=False) from error
                links = {
                    key: dg.MetadataValue.url(link) if key.endswith("url") else link for key, link in run.links.items()
                }
                yield dg.Output(value, metadata=links)

        signature = inspect.signature(body)
        parameters = [parameter for name, parameter in signature.parameters.items() if name != "run"]
        compute.__signature__ = signature.replace(parameters=parameters, return_annotation=Any)  # type: ignore[attr-defined]
        compute.__annotations__ = {p.name: p.annotation for p in parameters if p.annotation is not p.empty}
        del compute.__wrapped__  # Dagster would look through it at the body's own signature
        asset: dg.AssetsDefinition = dg.asset(required_resource_keys={"tracker"}, **settings)(compute)
        return asset

    return decorate


def _step(context: dg.AssetExecutionContext) -> Step:
    tags = context.run.tags
    return Step(
        asset=context.asset_key.to_user_string(),
        partition=context.partition_key if context.has_partition_key else None,
        dagster_run=context.run.run_id,
        root_run=context.run.root_run_id or context.run.run_id,
        attempt=context.retry_number + 1,
        backfill=tags.get("dagster/backfill"),
    )
