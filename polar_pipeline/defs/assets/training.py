"""What is noted of an adapter, of one language or of all: in the tracked run, and in its materialization.

A language's run finds what `train_adapters` has trained; it then shows what that took, not how fast it was found.
"""

from pathlib import Path
from typing import Any

import dagster as dg

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.backbones.base import Progress
from polar_pipeline.defs.metadata import table
from polar_pipeline.defs.tracked_asset import StepContext
from polar_pipeline.tracking.base import Scalar, TrackedRun

_MEANS = {"tokens_per_second": "train_tokens_per_second", "loss": "train_loss"}  # other names for means over models


def note_training(
    context: StepContext,
    run: TrackedRun,
    parameters: dict[str, Scalar],
    ref: AdapterRef,
    root: Path,
    rows: int,
    seconds: float,
    progress: Progress,
) -> None:
    """`rows` were fitted on, in `seconds` now, unless `progress` knows what it took when it was done."""
    figures = {"train_seconds": seconds, **progress.figures}
    models = _models(figures)
    whole = {name: value for name, value in figures.items() if "/" not in name} | _means(models)
    run.log(params=parameters, metrics={"train_posts": rows, **whole})
    run.log(params={"adapter_sha256": ref.sha256, "config_fingerprint": ref.config_fingerprint})
    run.log(metrics={f"end/{name}": value for name, value in figures.items() if "/" in name})
    run.log_data(f"posts-{ref.language}", ref.posts_fingerprint)
    found: dict[str, Any] = {"path": dg.MetadataValue.path(root / ref.path), "sha256": ref.sha256, "train_posts": rows}
    if models:
        columns = sorted({name for mine in models.values() for name in mine})
        found["models"] = table(
            [{"model": key} | {name: mine.get(name) for name in columns} for key, mine in models.items()]
        )
    context.add_output_metadata(found | whole)


def _models(figures: dict[str, float]) -> dict[str, dict[str, float]]:
    """Figures of each model, by its key."""
    models: dict[str, dict[str, float]] = {}
    for name, value in figures.items():
        key, slash, figure = name.rpartition("/")
        if slash:
            models.setdefault(key, {})[figure] = value
    return models


def _means(models: dict[str, dict[str, float]]) -> dict[str, float]:
    """The mean over models of every figure that models have but seconds."""
    names = {name for mine in models.values() for name in mine} - {"seconds"}
    values = {name: [mine[name] for mine in models.values() if name in mine] for name in sorted(names)}
    return {_MEANS.get(name, name): sum(mine) / len(mine) for name, mine in values.items()}
