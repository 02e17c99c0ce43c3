"""Full fine-tuning in the place of an adapter: all weights are trained, and put back as they were before the next model.

For small models, encoders above all; what is saved is the whole model. The interface is that of `adapter.Slot`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.head import draw_head
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.storage.fingerprint import canonical_json

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class Whole:
    """A base whose own weights are trained."""

    def __init__(self, base: BaseModel, settings: LoraSettings) -> None:
        self.base, self._settings = base, settings
        self._before: dict[str, Tensor] = {
            name: parameter.detach().cpu().clone() for name, parameter in base.model.named_parameters()
        }

    def use(self, settings: LoraSettings) -> None:
        """Train the next models as another backbone over the same base wants them."""
        self._settings = settings
        self.base.max_length = settings.max_length

    def fresh(self, seed: int) -> dict[str, Any]:
        """The pretrained weights, and a head in float32 that is drawn from `seed`. Returns the parameters to train, by name."""
        self._put(self._before)
        draw_head(self._head(), seed)
        self.base.model.requires_grad_(True)
        return dict(self.base.model.named_parameters())

    def files(self) -> dict[str, bytes]:
        """The weights and the model's configuration, as transformers would save them."""
        from safetensors.torch import save

        tensors = {name: value.detach().cpu().contiguous() for name, value in self.base.model.named_parameters()}
        config = {**self.base.model.config.to_diff_dict(), "architectures": [type(self.base.model).__name__]}
        return {WEIGHTS: save(tensors, metadata={"format": "pt"}), CONFIG: canonical_json(config)}

    def load(self, folder: Path) -> None:
        """Put in the model that lies in `folder`. Raises InputError when its weights are not those of this architecture."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found = load_file(folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{folder} cannot be read as a model ({error}): remove it and train it again.") from error
        if {name: value.shape for name, value in found.items()} != {
            name: value.shape for name, value in self._before.items()
        }:
            raise InputError(
                f"the model in {folder} is of another architecture than {self.base.name!r}: train it again."
            )
        self._put(found)

    def empty(self) -> None:
        """The base as it was."""
        self._put(self._before)

    def _head(self) -> dict[str, Any]:
        named = self.base.model.named_parameters()
        return {name: value for name, value in named if name.startswith(f"{self.base.head}.")}

    def _put(self, weights: "dict[str, Tensor]") -> None:
        head = self._head()
        self.base.model.requires_grad_(False)
        for name, parameter in self.base.model.named_parameters():
            dtype = weights[name].dtype if name not in head else head[name].float().dtype
            parameter.data = weights[name].to(parameter.device, dtype)
            parameter.grad = None
