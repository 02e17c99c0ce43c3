"""A run over several languages: one after the other, each in a tracked run, stored and materialized when it is done.

What one language does wrong is told at the end, by name; until then the others go on, and a process that is killed
loses the language in work alone. What does not belong here: a run of one language (`tracked`).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import dagster as dg

from polar_pipeline.defs.step import StepContext, links, step_of
from polar_pipeline.errors import InputError

CODE_VERSION = (
    "dagster/code_version"  # what Dagster tags its own materializations with, to tell those that are out of date
)

Body = Callable[..., Any]


class Store(Protocol):
    """An IO manager that takes a language's value when it is there."""

    def store(self, asset: str, language: str, value: Any) -> None:
        """Write it, whole or not at all."""


def each_language(
    body: Body,
    context: dg.AssetExecutionContext,
    keys: list[str],
    inputs: Mapping[str, Mapping[str, Any]],
    store: Store,
) -> Iterator[dg.AssetMaterialization]:
    """A materialization for each of `keys`, after its value was stored.

    `inputs` are upstream values by name and language.

    Raises dg.Failure that names every language that failed.
    """
    absent = {key: [name for name, values in inputs.items() if key not in values] for key in keys}
    failed = {key: f"{', '.join(names)} is not there: materialize it first." for key, names in absent.items() if names}
    ready, unexpected = [key for key in keys if key not in failed], False
    for key in ready:
        try:
            with context.resources.tracker.step(step_of(context, key)) as run:
                step = StepContext(context, key, last=key == ready[-1])
                value = body(step, **{name: values[key] for name, values in inputs.items()}, run=run)
                store.store(context.asset_key.to_user_string(), key, value)
                yield _materialization(context, key, step.metadata | links(run.links))
        except InputError as error:
            failed[key] = str(error)
            context.log.error(f"{key}: {error}")
        except Exception as error:  # whatever it is, it is this language's: the step fails below
            failed[key], unexpected = f"{type(error).__name__}: {error}", True
            context.log.exception(f"{key}: {error}")
    if failed:
        named = "; ".join(f"{key}: {text}" for key, text in failed.items())
        raise dg.Failure(f"{len(failed)} of {len(keys)} languages failed ({named})", allow_retries=unexpected)


def _materialization(context: dg.AssetExecutionContext, key: str, metadata: dict[str, Any]) -> dg.AssetMaterialization:
    version = context.assets_def.code_versions_by_key[context.asset_key]
    tags = {CODE_VERSION: version} if version else {}
    return dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata, tags=tags)
