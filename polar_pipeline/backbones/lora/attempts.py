"""What happens when a GPU's memory runs out: all that was in work is let go of, and it is tried again in halves, or one sentence is said.

Cleaning up in the handler would free nothing: the error's traceback holds the frames of the failed call, and they hold its tensors.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from polar_pipeline.backbones.base import Progress
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import LoraSettings

Result = TypeVar("Result")


def attempted(work: Callable[[], Result]) -> Result | None:
    """What `work` gives, or None where memory ran out: nothing of it is held any longer then."""
    import torch

    try:
        return work()
    except torch.OutOfMemoryError:
        pass
    _give_back()
    return None


@contextmanager
def enough_memory(settings: LoraSettings) -> Iterator[None]:
    """Raises InputError in place of memory that runs out where nothing can be cut in halves: a probe, an optimizer's first step."""
    import torch

    try:
        yield
        return
    except torch.OutOfMemoryError:
        pass
    _give_back()
    raise InputError(
        f"backbone {settings.name!r} has not enough memory to train beside its base: lower token_budget or rank, set four_bit to true, "
        f"or recompute to always."
    ) from None


class Parts:
    """How many parts each batch is computed in: one, and two from the first time on that memory runs out."""

    def __init__(self, settings: LoraSettings, progress: Progress, adapters: int = 1) -> None:
        self.count = 1
        self._settings, self._progress, self._adapters = settings, progress, adapters

    def compute(self, title: str, work: Callable[[], Result]) -> Result:
        """What `work` gives, which looks at `count`. Raises InputError when memory does not suffice for halves either."""
        found = attempted(work)
        if found is None and self.count == 1:
            self.count = 2
            self._progress(f"{title}: out of memory, so each batch is computed in two halves from now on")
            found = attempted(work)
        if found is not None:
            return found
        alone = self._adapters == 1
        raise InputError(
            f"backbone {self._settings.name!r} has not enough memory for half of token_budget {self._settings.token_budget}"
            f"{'' if alone else f' for {self._adapters} adapters'} either: lower {'it' if alone else 'together or token_budget'}, "
            f"set four_bit to true, or recompute to always."
        )


def _give_back() -> None:
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()
