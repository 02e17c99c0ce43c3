"""A base model whose adapter, or whose own weights, are trained: made fresh from a seed, saved and read back.

An adapter is added under a new name and the one before it is deleted, which is bit for bit what a fresh process does;
unloading and wrapping again would hand a trained head to the next language. Its files have PEFT's format.
"""

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polar_pipeline.backbones.lora.base_model import BaseModel, fuse_adapter
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.storage.fingerprint import canonical_json

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
MODEL_WEIGHTS, MODEL_CONFIG = "model.safetensors", "config.json"

_PEFT_PREFIX = "base_model.model."  # before every name in PEFT's files
_HEAD_SPREAD = 0.02  # the initializer_range of the models that are used


class AdaptedModel:
    """A frozen base with one LoRA adapter and a trainable head."""

    def __init__(self, base: BaseModel, settings: LoraSettings) -> None:
        import torch

        self.base, self._settings = base, settings
        self._peft: Any = None
        self._name, self._count = "", 0
        self._head = {
            f"{_PEFT_PREFIX}{head}.{name}": tuple(value.shape)
            for head in base.heads
            for name, value in base.model.get_submodule(head).state_dict().items()
        }
        self._linear = {  # inputs and outputs of the linear layers below the head, by name
            f"{base.model.base_model_prefix}.{name}": (module.in_features, module.out_features)
            for name, module in base.trunk.named_modules()
            if isinstance(module, torch.nn.Linear) and not name.startswith("pooler.")
        }

    def configure(self, settings: LoraSettings) -> None:
        """Make the next adapters by the settings of another backbone over the same base."""
        self._settings = settings
        self.base.max_length = settings.max_length

    def fresh(self, seed: int) -> dict[str, Any]:
        """Put in an adapter that changes nothing yet and a head in float32, both drawn from `seed`.

        Returns the parameters to train, by name.
        """
        import torch

        devices = [torch.cuda.current_device()] if self.base.device == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            self._add(self._config())
        _draw_head(self.base, self._head_parameters(), seed)
        for module in self.base.model.modules():  # of an encoder too, which has its own
            if isinstance(module, torch.nn.Dropout):
                module.p = self._settings.dropout
        return self.parameters()

    def parameters(self) -> dict[str, Any]:
        """What is trained, by name, without the adapter's own name in it."""
        return {
            name.replace(f".{self._name}.", "."): parameter
            for name, parameter in self._peft.named_parameters()
            if parameter.requires_grad
        }

    def files(self) -> dict[str, bytes]:
        """Adapter and head as PEFT would save them, with a configuration in a fixed order and without local paths."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save

        state = get_peft_model_state_dict(self._peft, adapter_name=self._name, save_embedding_layers=False)
        config = self._peft.peft_config[self._name].to_dict()
        config |= {"inference_mode": True, "base_model_name_or_path": self._settings.model}
        config |= {"revision": self._settings.revision, "modules_to_save": self._saved_whole()}
        tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
        return {ADAPTER_WEIGHTS: save(tensors, metadata={"format": "pt"}), ADAPTER_CONFIG: canonical_json(config)}

    def load(self, folder: Path) -> None:
        """Put in the adapter of `folder`. Raises InputError if its files are no adapter of this base."""
        from peft import LoraConfig, set_peft_model_state_dict
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            config, state = LoraConfig.from_pretrained(str(folder)), load_file(folder / ADAPTER_WEIGHTS)
        except (OSError, ValueError, TypeError, LookupError, SafetensorError) as error:
            raise InputError(
                f"{folder} cannot be read as an adapter ({error}): remove it and train it again."
            ) from error
        if not isinstance(config, LoraConfig) or not isinstance(config.target_modules, str):
            raise InputError(
                f"the adapter in {folder} was not trained here: its target_modules are no pattern; train it again."
            )
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        wanted = self._shapes(config)
        if found != wanted:  # refused before anything is put in, so that the model stays as it is
            some = ", ".join(sorted({name for name, _ in wanted.items() ^ found.items()})[:2])
            raise InputError(
                f"the adapter in {folder} is of another base or other target modules ({some}): train it again."
            )
        config.base_model_name_or_path = None  # PEFT warns when it is not the folder that the base was read from
        self._add(config)
        for parameter in self._head_parameters().values():
            parameter.data = parameter.data.float()
        set_peft_model_state_dict(self._peft, state, adapter_name=self._name)

    def _add(self, config: Any) -> None:
        from peft import get_peft_model

        before, self._name, self._count = self._name, f"a{self._count}", self._count + 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT uses an old name of transformers
            if self._peft is None:
                self._peft = get_peft_model(
                    self.base.model, config, adapter_name=self._name, autocast_adapter_dtype=False
                )
            else:
                self._peft.add_adapter(self._name, config, autocast_adapter_dtype=False)
                self._peft.set_adapter(self._name)
                self._peft.delete_adapter(before)
        self.base.model = self._peft.base_model.model
        if self.base.device == "cuda":
            fuse_adapter(self.base.model, self._name)

    def _config(self) -> Any:
        from peft import LoraConfig

        chosen = self._settings
        return LoraConfig(
            task_type="SEQ_CLS",
            r=chosen.rank,
            lora_alpha=chosen.alpha,
            lora_dropout=chosen.dropout,
            target_modules=self._target_pattern(),
            modules_to_save=self._saved_whole(),
        )

    def _saved_whole(self) -> list[str]:
        return [name.rpartition(".")[2] for name in self.base.heads]

    def _target_pattern(self) -> str:
        """A pattern of the layers that get an adapter. Raises InputError for a name without a linear layer.

        PEFT's own `all-linear` takes an earlier adapter's head for a layer, and its order changes between processes.
        """
        chosen, linear = self._settings.target_modules, sorted({name.rpartition(".")[2] for name in self._linear})
        names = linear if isinstance(chosen, str) else sorted(chosen)
        if unknown := [name for name in names if name not in linear]:
            raise InputError(
                f"backbone {self._settings.name!r}: target_modules {', '.join(unknown)} are no linear layers of "
                f"{self.base.name!r}, use all-linear or some of {', '.join(linear)}."
            )
        trunk = self.base.model.base_model_prefix
        inside = r"(?!pooler\.)" if self.base.pooler.startswith(f"{trunk}.") else ""  # BERT's is trained whole
        return rf"{trunk}\.{inside}.*\.({'|'.join(names)})"

    def _head_parameters(self) -> dict[str, Any]:
        """Those of head and pooler, by their names in the base."""
        mark = f"modules_to_save.{self._name}."
        return {
            name.removeprefix(_PEFT_PREFIX).replace(mark, ""): parameter
            for name, parameter in self._peft.named_parameters()
            if mark in name
        }

    def _shapes(self, config: Any) -> dict[str, tuple[int, ...]]:
        """Shapes of an adapter of this base with `config`, whose target modules are a pattern, by name in its file."""
        found = dict(self._head)
        for name, (inputs, outputs) in self._linear.items():
            if re.fullmatch(config.target_modules, name):
                found[f"{_PEFT_PREFIX}{name}.lora_A.weight"] = (config.r, inputs)
                found[f"{_PEFT_PREFIX}{name}.lora_B.weight"] = (outputs, config.r)
        return found


class FineTunedModel:
    """A small model, such as an encoder, whose own weights are all trained. The whole model is saved."""

    def __init__(self, base: BaseModel, settings: LoraSettings) -> None:
        self.base, self._settings = base, settings
        self._pretrained: dict[str, Tensor] = {
            name: parameter.detach().cpu().clone() for name, parameter in base.model.named_parameters()
        }

    def configure(self, settings: LoraSettings) -> None:
        """Train the next models by the settings of another backbone over the same base."""
        self._settings = settings
        self.base.max_length = settings.max_length

    def fresh(self, seed: int) -> dict[str, Any]:
        """The pretrained weights, and a head in float32 drawn from `seed`. Returns the parameters to train, by name."""
        self._put(self._pretrained)
        _draw_head(self.base, self._head(), seed)
        self.base.model.requires_grad_(True)
        return dict(self.base.model.named_parameters())

    def files(self) -> dict[str, bytes]:
        """Weights and configuration as transformers would save them."""
        from safetensors.torch import save

        tensors = {name: value.detach().cpu().contiguous() for name, value in self.base.model.named_parameters()}
        config = {**self.base.model.config.to_diff_dict(), "architectures": [type(self.base.model).__name__]}
        return {MODEL_WEIGHTS: save(tensors, metadata={"format": "pt"}), MODEL_CONFIG: canonical_json(config)}

    def load(self, folder: Path) -> None:
        """Put in the model of `folder`. Raises InputError if its weights are not those of this architecture."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found = load_file(folder / MODEL_WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{folder} cannot be read as a model ({error}): remove it and train it again.") from error
        wanted = {name: value.shape for name, value in self._pretrained.items()}
        if {name: value.shape for name, value in found.items()} != wanted:
            raise InputError(
                f"the model in {folder} is of another architecture than {self.base.name!r}: train it again."
            )
        self._put(found)

    def _head(self) -> dict[str, Any]:
        marks = tuple(f"{head}." for head in self.base.heads)
        return {name: value for name, value in self.base.model.named_parameters() if name.startswith(marks)}

    def _put(self, weights: "dict[str, Tensor]") -> None:
        head = self._head()
        self.base.model.requires_grad_(False)
        for name, parameter in self.base.model.named_parameters():
            dtype = weights[name].dtype if name not in head else head[name].float().dtype
            parameter.data = weights[name].to(parameter.device, dtype)
            parameter.grad = None


TunableModel = AdaptedModel | FineTunedModel


def _draw_head(base: BaseModel, parameters: dict[str, Any], seed: int) -> None:
    """Fill a head, and what the checkpoint lacks of a pooler, from `seed` alone.

    In float32: in bfloat16 small updates would round to nothing. Biases begin at 0, the scale of a norm at 1. Finer
    labels begin at 0 too: they get a small share of the loss, and would not outgrow a random direction.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, parameter in parameters.items():
        if not name.startswith(f"{base.head}.") and name not in base.untrained:
            parameter.data = parameter.data.float()
            continue
        drawn = torch.full(parameter.shape, float(name.endswith(".weight")), dtype=torch.float32)
        if parameter.ndim > 1:
            drawn.normal_(std=_HEAD_SPREAD, generator=generator)
        if base.groups and len(drawn) == base.outputs:
            drawn[1:] = 0
        parameter.data = drawn.to(parameter.device)
