"""The base models that a process holds: each is loaded once, for as many languages and folds as the process trains.

Several stay as long as there is memory; those that were there leave before it gets short.
"""

from contextlib import suppress
from pathlib import Path

from polar_pipeline.backbones.lora.memory import TooLarge
from polar_pipeline.backbones.lora.tunable import AdaptedModel, FineTunedModel, TunableModel
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import LoraSettings

# what a loaded model depends on; backbones that differ elsewhere share it
_LOADED_BY = {"model", "revision", "device", "threads", "dtype", "four_bit", "tuning"}
_BESIDE_OTHERS = 2.0  # free memory in shares of the weights: as much again for gradients and activations


class ModelCache:
    """Loads base models on first use. Not thread-safe."""

    def __init__(self) -> None:
        self._models: dict[str, TunableModel] = {}
        self._refused: dict[str, str] = {}  # why a model cannot be had: the hub is not asked again for every language
        self.loads = 0  # how often a base was loaded

    def get(self, settings: LoraSettings, root: Path) -> TunableModel:
        """The base of `settings`, to be adapted or fine-tuned. Tiny ones are built under `root`.

        Raises InputError as `load_base`.
        """
        key = settings.model_dump_json(include=_LOADED_BY)
        if key not in self._models:
            self._models[key] = self._load(settings, root / "bases")
            self.loads += 1
        self._models[key].configure(settings)
        return self._models[key]

    def identity(self, settings: LoraSettings, root: Path) -> str:
        """Which weights the base of `settings` has. One that is not loaded is not loaded for it.

        Raises InputError as `load_base`.
        """
        from polar_pipeline.backbones.lora.model_files import base_identity

        key = settings.model_dump_json(include=_LOADED_BY)
        if key in self._models:
            return self._models[key].base.identity
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

        self._models.clear()
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _load(self, settings: LoraSettings, root: Path) -> TunableModel:
        from polar_pipeline.backbones.lora.loading import load_base

        kind = AdaptedModel if settings.tuning == "lora" else FineTunedModel
        if self._models:
            with suppress(TooLarge):
                return kind(load_base(settings, root, _BESIDE_OTHERS), settings)
            self.release()
        return kind(load_base(settings, root), settings)
