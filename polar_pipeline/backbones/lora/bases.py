"""The base models that a process holds: each is loaded once, for as many languages and folds as the process trains.

One at a time, because two large ones rarely fit; the one that was there leaves first. What does not belong here: what is done with it.
"""

from pathlib import Path

from polar_pipeline.backbones.lora.adapter import Slot
from polar_pipeline.task.backbones import LoraSettings

# what a loaded model depends on; backbones that differ elsewhere share it
_LOADED_BY = {"model", "revision", "device", "threads", "dtype", "four_bit", "max_length"}


class Bases:
    """Loads on first use. Not for threads."""

    def __init__(self) -> None:
        self._key = ""
        self._slot: Slot | None = None
        self.loads = 0  # how often a base was loaded

    def slot(self, settings: LoraSettings, root: Path) -> Slot:
        """The place for an adapter in the base of `settings`; tiny bases are built under `root`. Raises InputError as `load_base`."""
        from polar_pipeline.backbones.lora.loading import load_base

        key = settings.model_dump_json(include=_LOADED_BY)
        if self._slot is None or key != self._key:
            self.release()
            self._slot, self._key = Slot(load_base(settings, root / "bases"), settings), key
            self.loads += 1
        self._slot.use(settings)
        return self._slot

    def release(self) -> None:
        """Give the memory back."""
        import gc
        import sys

        self._slot = None
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
