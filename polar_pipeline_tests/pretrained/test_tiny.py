"""Tiny models with random weights: the same bytes everywhere, and the layouts of real checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from polar_pipeline.errors import InputError
from polar_pipeline.pretrained.tiny import tiny_checkpoint, tokenizer
from polar_pipeline_tests.backbones.lora.processes import SHAPES


@pytest.mark.parametrize("shape", SHAPES)
def test_another_process_builds_the_same_bytes(here: dict[str, str], elsewhere: dict[str, str], shape: str) -> None:
    assert here[f"{shape} weights"] == elsewhere[f"{shape} weights"]


def test_the_seed_gives_the_weights_and_the_callers_random_numbers_do_not(tmp_path: Path) -> None:
    first = load_file(tiny_checkpoint("tiny:gemma3", tmp_path / "a", seed=1) / "model.safetensors")
    torch.manual_seed(9)
    before = torch.get_rng_state()
    again = load_file(tiny_checkpoint("tiny:gemma3", tmp_path / "b", seed=1) / "model.safetensors")
    assert torch.equal(before, torch.get_rng_state())
    other = load_file(tiny_checkpoint("tiny:gemma3", tmp_path / "a", seed=2) / "model.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_it_is_built_once(tmp_path: Path) -> None:
    folder = tiny_checkpoint("tiny:qwen3", tmp_path)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert tiny_checkpoint("tiny:qwen3", tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'tiny:gemma4' is no tiny model: use one of tiny:gemma3, .*tiny:xlm_roberta"):
        tiny_checkpoint("tiny:gemma4", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", ["gemma3", "gemma3_multimodal"])
def test_gemma_has_six_layers_and_both_kinds_of_attention(tmp_path: Path, shape: str) -> None:
    config = json.loads((tiny_checkpoint(f"tiny:{shape}", tmp_path) / "config.json").read_text())
    text = config.get("text_config", config)
    assert text["num_hidden_layers"] == 6
    assert set(text["layer_types"]) == {"sliding_attention", "full_attention"}
    assert text["sliding_window"] == 32


def test_the_multimodal_layout_has_a_vision_tower_and_other_names(tmp_path: Path) -> None:
    names = load_file(tiny_checkpoint("tiny:gemma3_multimodal", tmp_path) / "model.safetensors")
    assert any("vision_tower" in name for name in names)
    assert any("language_model" in name for name in names)
    assert not any(name.startswith("model.layers.") for name in names)


def test_a_text_is_its_bytes() -> None:
    found = tokenizer()
    for text in ("Straße", "", "naïve 日本 🎉", "a\nb\t c", "\x00"):
        numbers = found(text)["input_ids"]
        assert len(numbers) == 1 + len(text.encode())
        assert found.decode(numbers[1:]) == text
