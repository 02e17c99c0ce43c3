"""An adapter is the same whatever the base held before and is read by plain PEFT; damaged ones are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load, load_file, save_file

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.base_model import score_tokens
from polar_pipeline.backbones.lora.loading import load_base
from polar_pipeline.backbones.lora.training import train_model
from polar_pipeline.backbones.lora.tunable import ADAPTER_CONFIG as CONFIG
from polar_pipeline.backbones.lora.tunable import ADAPTER_WEIGHTS as WEIGHTS
from polar_pipeline.backbones.lora.tunable import AdaptedModel
from polar_pipeline.errors import InputError
from polar_pipeline.pretrained.tiny import tiny_checkpoint
from polar_pipeline_tests.backbones.lora.examples import fit, settings
from polar_pipeline_tests.backbones.lora.processes import SHAPES

TEXTS = ["ein Satz", "b", "noch ein etwas längerer Satz, der abgeschnitten wird", ""]


def trained(slot: AdaptedModel, root: Path, seed: int = 7) -> dict[str, bytes]:
    """The files of an adapter whose weights all have moved."""
    train_model(slot, fit(slot.base, seed=seed), slot._settings, root / f"{seed}.checkpoint", Progress())
    return slot.files()


def written(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def scores(slot: AdaptedModel) -> np.ndarray:
    return score_tokens(slot.base, slot.base.tokens(TEXTS), 128)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("when", ["fresh", "trained"])
def test_another_process_makes_the_same_bytes(
    here: dict[str, str], elsewhere: dict[str, str], shape: str, when: str
) -> None:
    """The order of sets differs between the two."""
    keys = [f"{shape} {when} {name}" for name in (WEIGHTS, CONFIG)]
    assert [here[key] for key in keys] == [elsewhere[key] for key in keys]


@pytest.mark.parametrize("shape", ["gemma3", "xlm_roberta"])
def test_nothing_of_an_adapter_reaches_the_next_one(bases_root: Path, tmp_path: Path, shape: str) -> None:
    """The trap: wrapping the model again hands a trained head to the next language, and names to its configuration."""
    chosen = settings(model=f"tiny:{shape}")
    slot = AdaptedModel(load_base(chosen, bases_root), chosen)
    slot.fresh(1)
    first = slot.files()
    other = trained(slot, tmp_path)
    assert first[WEIGHTS] != other[WEIGHTS]
    heads = [load(files[WEIGHTS]) for files in (first, other)]
    assert all(not torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    slot.fresh(1)
    assert slot.files() == first
    slot.load(written(other, tmp_path / "other"))
    slot.fresh(1)
    assert slot.files() == first
    assert trained(slot, tmp_path) == other


def test_the_seed_gives_adapter_and_head(slot: AdaptedModel) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    slot.fresh(1)
    first = load(slot.files()[WEIGHTS])
    assert torch.equal(before, torch.get_rng_state())
    slot.fresh(2)
    second = load(slot.files()[WEIGHTS])
    drawn = [name for name in first if "lora_B" not in name]
    assert any("score" in name for name in drawn)
    assert all(not torch.equal(first[name], second[name]) for name in drawn)
    assert all(first[name].abs().sum() == 0 for name in first if "lora_B" in name)


@pytest.mark.parametrize("shape", SHAPES)
def test_adapters_are_on_every_linear_layer_below_the_head_and_on_nothing_else(bases_root: Path, shape: str) -> None:
    chosen = settings(model=f"tiny:{shape}")
    base = load_base(chosen, bases_root)
    linear = {name for name, module in base.trunk.named_modules() if isinstance(module, torch.nn.Linear)}
    slot = AdaptedModel(base, chosen)
    for seed in (1, 2):
        slot.fresh(seed)
        keys = load(slot.files()[WEIGHTS])
        adapted = {key.removeprefix("base_model.model.").partition(".lora_")[0] for key in keys if "lora_" in key}
        assert adapted == {f"{base.model.base_model_prefix}.{name}" for name in linear}
        assert {key.split(".")[2] for key in keys if "lora_" not in key} == {base.head}
        # what was left of the one before is gone
        assert sum(".lora_A." in name for name, _ in base.model.named_parameters()) == len(linear)


def test_chosen_modules_alone(bases_root: Path) -> None:
    chosen = settings(target_modules=("q_proj", "v_proj"))
    slot = AdaptedModel(load_base(chosen, bases_root), chosen)
    slot.fresh(1)
    assert json.loads(slot.files()[CONFIG])["target_modules"] == r"model\..*\.(q_proj|v_proj)"
    assert sum("lora_A" in name for name in load(slot.files()[WEIGHTS])) == 12


def test_trained_are_adapter_and_head_and_the_head_in_float32(bases_root: Path) -> None:
    """The trap: a head in bfloat16 rounds its updates away."""
    chosen = settings(dtype="bfloat16")
    slot = AdaptedModel(load_base(chosen, bases_root), chosen)
    parameters = slot.fresh(1)
    assert {name.split(".")[2] for name in parameters} == {"model", "score"}
    assert all(("lora_" in name) != ("score" in name) for name in parameters)
    assert {str(value.dtype) for name, value in parameters.items() if "score" in name} == {"torch.float32"}
    assert {str(value.dtype) for name, value in parameters.items() if "lora_" in name} == {"torch.bfloat16"}
    assert slot.base.logits(slot.base.tokens(["a"])).dtype == torch.float32
    saved = slot.files()
    assert load(saved[WEIGHTS])["base_model.model.score.weight"].dtype == torch.float32


@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_saved_gives_the_same_logits_in_another_base(bases_root: Path, tmp_path: Path, shape: str) -> None:
    chosen = settings(model=f"tiny:{shape}")
    slot = AdaptedModel(load_base(chosen, bases_root), chosen)
    folder = written(trained(slot, tmp_path), tmp_path / "adapter")
    expected = scores(slot)
    other = AdaptedModel(load_base(chosen, bases_root), chosen)
    other.load(folder)
    np.testing.assert_array_equal(scores(other), expected)
    assert other.files() == slot.files()
    slot.fresh(3)
    assert np.abs(scores(slot) - expected).max() > 1e-3
    slot.load(folder)
    np.testing.assert_array_equal(scores(slot), expected)


PLAIN = {
    "gemma3": lambda place, **how: transformers.Gemma3TextForSequenceClassification.from_pretrained(place, **how),
    "qwen3": lambda place, **how: transformers.Qwen3ForSequenceClassification.from_pretrained(place, **how),
    "xlm_roberta": lambda place, **how: transformers.XLMRobertaForSequenceClassification.from_pretrained(place, **how),
}


@pytest.mark.parametrize(
    ("shape", "four_bit", "tolerance"),
    [("gemma3", False, 1e-5), ("qwen3", False, 1e-5), ("xlm_roberta", False, 1e-5), ("gemma3", True, 1e-4)],
)
def test_plain_peft_reads_it(bases_root: Path, tmp_path: Path, shape: str, four_bit: bool, tolerance: float) -> None:
    chosen = settings(model=f"tiny:{shape}", four_bit=four_bit)
    slot = AdaptedModel(load_base(chosen, bases_root), chosen)
    folder = written(trained(slot, tmp_path), tmp_path / "adapter")
    expected = scores(slot)
    how: dict[str, Any] = {}
    if four_bit:
        how["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
            llm_int8_skip_modules=["score"],
        )
    place = tiny_checkpoint(f"tiny:{shape}", bases_root)
    model = peft.PeftModel.from_pretrained(PLAIN[shape](place, num_labels=1, dtype=torch.float32, **how), folder).eval()
    for module in model.modules():  # some CPUs round otherwise when they score
        if four_bit and hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    found = []
    for text in TEXTS:
        given = slot.base.tokenizer([text], truncation=True, max_length=32, return_tensors="pt")
        with torch.inference_mode():
            found.append(float(model(**given).logits[0, 0]))
    np.testing.assert_allclose(found, expected, atol=tolerance)
    slot.fresh(7)
    assert np.abs(scores(slot) - expected).max() > 100 * tolerance  # the adapter does something


def test_four_bit_keeps_the_head_and_shrinks_the_rest(bases_root: Path) -> None:
    base = load_base(settings(four_bit=True), bases_root)
    assert base.model.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
    assert base.model.score.weight.dtype == torch.float32


def test_its_configuration_names_the_model_and_no_place_of_this_machine(slot: AdaptedModel, bases_root: Path) -> None:
    slot.fresh(1)
    content = slot.files()[CONFIG]
    config = json.loads(content)
    assert config["base_model_name_or_path"] == "tiny:gemma3" and config["task_type"] == "SEQ_CLS"
    assert config["inference_mode"] is True and config["modules_to_save"] == ["score"]
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert str(bases_root).encode() not in content and b"/tmp" not in content and b"/home" not in content


def _change_config(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | changes))

    return change


def _change_weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], object]:
    return lambda folder: save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights gone": lambda folder: (folder / WEIGHTS).unlink(),
    "configuration gone": lambda folder: (folder / CONFIG).unlink(),
    "weights cut": lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100]),
    "weights are text": lambda folder: (folder / WEIGHTS).write_text("no tensors"),
    "weights empty": lambda folder: (folder / WEIGHTS).write_bytes(b""),
    "configuration cut": lambda folder: (folder / CONFIG).write_text('{"peft_type": "LORA"'),
    "configuration is a list": lambda folder: (folder / CONFIG).write_text("[]"),
    "another kind": _change_config(peft_type="IA3"),
    "another rank": _change_config(r=8),
    "no rank": _change_config(r=0),
    "a rank that is text": _change_config(r="four"),
    "fewer modules": _change_config(target_modules=["q_proj"]),
    "modules of another base": _change_config(target_modules=["query", "key"]),
    "a layer less": _change_weights(lambda state: {k: v for k, v in state.items() if "layers.5." not in k}),
    "no head": _change_weights(lambda state: {k: v for k, v in state.items() if "score" not in k}),
    "a strange tensor": _change_weights(lambda state: state | {"strange": torch.zeros(1)}),
    "a larger head": _change_weights(lambda state: state | {"base_model.model.score.weight": torch.zeros(2, 64)}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_no_adapter_of_this_base_is_refused(slot: AdaptedModel, tmp_path: Path, damage: str) -> None:
    slot.fresh(1)
    good = slot.files()
    folder = written(good, tmp_path / "adapter")
    DAMAGE[damage](folder)
    with pytest.raises(InputError, match=r"adapter.* train it again"):
        slot.load(folder)
    # and the slot is as good as before
    slot.fresh(1)
    assert slot.files() == good
    slot.load(written(good, tmp_path / "whole"))
    assert slot.files() == good


def test_an_adapter_of_another_base_is_refused(slot: AdaptedModel, bases_root: Path, tmp_path: Path) -> None:
    chosen = settings(model="tiny:xlm_roberta")
    other = AdaptedModel(load_base(chosen, bases_root), chosen)
    other.fresh(1)
    with pytest.raises(InputError, match="train it again"):
        slot.load(written(other.files(), tmp_path / "adapter"))
