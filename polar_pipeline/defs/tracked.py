"""`tracked_asset`: an asset whose body runs inside a tracked run and gets it as the argument `run`.

The run is closed with the step: the output is yielded inside the tracker's block, so that a failure to store it marks the
run FAILED as well. An `InputError` becomes a failure that is not retried, because bad input stays bad. In a run over several
languages the body is called for one after the other (`many`).
"""

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from polar_pipeline.defs.many import each_language
from polar_pipeline.defs.step import StepContext, links, step_of
from polar_pipeline.errors import InputError


def tracked_asset(**settings: Any) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`@dg.asset(**settings)` for a body `(context, <upstream>..., run) -> value`.

    A run over several languages needs a `backfill_policy`: its languages are materialized one by one, and the step gives no
    output at its end.
    """
    key_of_store = settings.get("io_manager_key", "io_manager")
    needed = {"tracker"}
    if "backfill_policy" in settings:
        needed.add(key_of_store)
        settings["output_required"] = False

    def decorate(body: Callable[..., Any]) -> dg.AssetsDefinition:
        @functools.wraps(body)
        def compute(context: dg.AssetExecutionContext, **inputs: Any) -> Iterator[Any]:
            partitioned = context.has_partition_key or context.has_partition_key_range
            keys = list(context.partition_keys) if partitioned else []
            if len(keys) > 1:
                yield from each_language(body, context, keys, inputs, getattr(context.resources, key_of_store))
                return
            key = keys[0] if keys else None
            with context.resources.tracker.step(step_of(context, key)) as run:
                step = StepContext(context, key)
                try:
                    value = body(step, **inputs, run=run)
                except InputError as error:
                    raise dg.Failure(str(error), allow_retries=False) from error
                yield dg.Output(value, metadata=step.metadata | links(run.links))

        signature = inspect.signature(body)
        parameters = [parameter for name, parameter in signature.parameters.items() if name != "run"]
        compute.__signature__ = signature.replace(parameters=_for_dagster(parameters), return_annotation=Any)  # type: ignore[attr-defined]
        compute.__annotations__ = {
            p.name: p.annotation for p in _for_dagster(parameters) if p.annotation is not p.empty
        }
        del compute.__wrapped__  # Dagster would look through it at the body's own signature
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)  # backfill policies are called beta in this release
            asset: dg.AssetsDefinition = dg.asset(required_resource_keys=needed, **settings)(compute)
        return asset

    return decorate


def _for_dagster(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """The body's parameters, with types that hold for one language and for several."""
    first, *others = parameters
    annotated = [
        parameter if parameter.kind is parameter.VAR_KEYWORD else parameter.replace(annotation=Any)
        for parameter in others
    ]
    return [first.replace(annotation=dg.AssetExecutionContext), *annotated]
