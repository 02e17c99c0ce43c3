"""The base models that a process holds: each is loaded once, for as many languages and folds as the process trains.

Several stay as long as there is memory; before it gets short those that were there leave. What does not belong here: what is done with them.
"""

from contextlib import suppress
from pathlib import Path

from polar_pipeline.backbones.lora.adapter import Slot
from polar_pipeline.backbones.lora.memory import TooLarge
from polar_pipeline.backbones.lora.whole import Whole
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import LoraSettings

# what a loaded model depends on; backbones that differ elsewhere share it
_LOADED_BY = {"model", "revision", "device", "threads", "dtype", "four_bit", "tuning"}
_BESIDE = 2.0  # beside another base: as much again for gradients and activations


Place = Slot | Whole


class Bases:
    """Loads on first use. Not for threads."""

    def __init__(self) -> None:
        self._slots: dict[str, Place] = {}
        self._refused: dict[str, str] = {}  # why a model cannot be had: the hub is not asked again for every language
        self.loads = 0  # how often a base was loaded

    def slot(self, settings: LoraSettings, root: Path) -> Place:
        """The place for an adapter in the base of `settings`, or for its own weights; tiny bases are built under `root`. Raises InputError as `load_base`."""
        key = settings.model_dump_json(include=_LOADED_BY)
        if key not in self._slots:
            self._slots[key] = self._load(settings, root / "bases")
            self.loads += 1
        self._slots[key].use(settings)
        return self._slots[key]

    def identity(self, settings: LoraSettings, root: Path) -> str:
        """Which weights the base of `settings` are: of the one that is loaded, else by its files or the hub's commit, without loading it."""
        from polar_pipeline.backbones.lora.loading import base_identity

        key = settings.model_dump_json(include=_LOADED_BY)
        if key in self._slots:
            return self._slots[key].base.identity
        if key in self._refused:
            raise InputError(self._refused[key])
        try:
            return base_identity(settings, root / "bases")
        except InputError as error:
            self._refused[key] = str(error)
            raise

    def release(self) -> None:
        """Give the memory back."""
        import gc
        import sys

        self._slots.clear()
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _load(self, settings: LoraSettings, root: Path) -> Place:
        from polar_pipeline.backbones.lora.loading import load_base

        place = Slot if settings.tuning == "lora" else Whole
        if self._slots:
            with suppress(TooLarge):
                return place(load_base(settings, root, _BESIDE), settings)
            self.release()
        return place(load_base(settings, root), settings)
