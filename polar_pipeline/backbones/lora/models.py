"""Training the models of one language, or of several: one after the other, or so many in one step as the settings say.

Each is kept when it is done, with what was measured on the way. What does not belong here: what is trained, and the loop over steps.
"""

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.adapter import Slot
from polar_pipeline.backbones.lora.bases import Place
from polar_pipeline.backbones.lora.figures import Figures, of_model
from polar_pipeline.backbones.lora.joint import measure_names, train_adapters
from polar_pipeline.backbones.lora.language import Model
from polar_pipeline.backbones.lora.scoring import score_tokens
from polar_pipeline.backbones.lora.training import train_adapter
from polar_pipeline.backbones.lora.work import Work
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.storage.files import write_atomic


class Job(NamedTuple):
    """A model to train, where it is kept, and who hears of it."""

    model: Model
    work: Work
    progress: Progress


def train_models(slot: Place, jobs: list[Job], settings: LoraSettings) -> None:
    """Train what is not finished, so many at once as the settings say; groups are the same whatever is finished."""
    size = settings.together
    for group in (jobs[start : start + size] for start in range(0, len(jobs), size)):
        model, work, progress = group[0]
        if all(job.work.logits(job.model.key) is not None for job in group):
            progress(f"{', '.join(job.model.fit.title for job in group)}: trained before")
            continue
        started = time.perf_counter()
        if len(group) > 1 and isinstance(slot, Slot):
            _train_group(slot, group, settings, started)
        else:
            train_adapter(slot, model.fit, settings, work.checkpoint(model.key), progress)
            _finish(slot, group[0], slot.files(), settings, time.perf_counter() - started)


def training_figures(models: list[Model], work: Work) -> Figures:
    """What was measured of each model, and the seconds of all; of a training that was killed, those since."""
    by_model = {model.key: work.figures(model.key) for model in models}
    seconds = sum(figures.get("seconds", 0.0) for figures in by_model.values())
    named = {f"{key}/{name}": value for key, figures in by_model.items() for name, value in figures.items()}
    return {"train_seconds": seconds, **named}


def _train_group(slot: Slot, group: list[Job], settings: LoraSettings, started: float) -> None:
    first, work, _ = group[0]
    checkpoint = work.checkpoint(f"{first.key}-and-{len(group) - 1}")
    fits = [job.model.fit._replace(origin=job.work.key) for job in group]
    found = train_adapters(slot, fits, settings, checkpoint, _Split(group))
    seconds = (time.perf_counter() - started) / len(group)
    for job, files in zip(group, found, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                write_atomic(Path(folder) / name, content)
            slot.load(Path(folder))
        _finish(slot, job, files, settings, seconds)
    checkpoint.unlink(missing_ok=True)


def _finish(slot: Place, job: Job, files: dict[str, bytes], settings: LoraSettings, seconds: float) -> None:
    model, work, progress = job
    logits = score_tokens(slot.base, model.judged.tokens, settings.token_budget)
    if not np.isfinite(logits).all():
        raise InputError(
            f"{model.fit.title} of backbone {settings.name!r} gives logits that are no numbers: lower its learning_rate."
        )
    figures = {"seconds": seconds, **of_model(progress.latest, model.key)}
    work.finish(model.key, files, logits, {name: value for name, value in figures.items() if np.isfinite(value)})


class _Split(Progress):
    """Hands what is measured of each model of a group to who hears of that model."""

    def __init__(self, group: list[Job]) -> None:
        super().__init__(group[0].progress)
        names = measure_names([job.model.fit for job in group])
        self._jobs = dict(zip(names, group, strict=True))

    def measure(self, step: int, values: dict[str, float]) -> None:
        """Each figure goes under its model's key to that model's language."""
        for name, value in values.items():
            model, _, figure = name.rpartition("/")
            job = self._jobs[model]
            job.progress.measure(step, {f"{job.model.key}/{figure}": value})
