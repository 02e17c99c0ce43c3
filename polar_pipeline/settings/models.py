"""How settings name a pretrained model."""

from typing import NamedTuple

TINY = "tiny:"  # a model that is built in place, such as tiny:gemma3


class ModelSource(NamedTuple):
    """A pretrained model as a setting names it."""

    model: str  # its folder, its name on the hub, or tiny: and a type
    revision: str  # a branch, tag or commit of the hub
    used_by: str  # the setting, as messages name it, such as "backbone 'gemma'"

    @property
    def tiny(self) -> bool:
        """Whether it has random weights, which only shows the path."""
        return self.model.startswith(TINY)
