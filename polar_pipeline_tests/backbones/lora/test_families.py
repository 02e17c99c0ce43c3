"""Families of models: supported ones give what transformers gives and are trained, others are refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.base_model import BaseModel, score_tokens
from polar_pipeline.backbones.lora.loading import FAMILIES, load_base
from polar_pipeline.backbones.lora.training import train_model
from polar_pipeline.backbones.lora.tunable import AdaptedModel
from polar_pipeline.errors import InputError
from polar_pipeline.pretrained.tiny import _SHAPE, tiny_checkpoint, tokenizer
from polar_pipeline_tests.backbones.lora.examples import fit, settings
from polar_pipeline_tests.backbones.lora.test_base_model import TEXTS, plain

_ENCODER = {key: value for key, value in _SHAPE.items() if key not in {"num_key_value_heads", "head_dim"}}

MADE: dict[str, Callable[[], Any]] = {
    "qwen2": lambda: transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(**{key: value for key, value in _SHAPE.items() if key != "head_dim"})
    ),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SHAPE)),
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**_SHAPE, sliding_window=32)),
    "roberta": lambda: transformers.RobertaForMaskedLM(transformers.RobertaConfig(**_ENCODER, type_vocab_size=1)),
}


@pytest.fixture(scope="module", params=MADE)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found: Path = tmp_path_factory.mktemp("families") / request.param
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        MADE[request.param]().save_pretrained(found)
    tokenizer().save_pretrained(found)
    return found


def loaded(folder: Path) -> BaseModel:
    base = load_base(settings(model=str(folder), max_length=64), folder.parent)
    torch.manual_seed(5)
    for parameter in getattr(base.model, base.head).parameters():
        parameter.data.normal_(std=0.5)
    return base


def test_every_family_is_tested() -> None:
    elsewhere = {"gemma3_text", "qwen3", "xlm-roberta"}  # the shapes of `processes.SHAPES`
    assert set(FAMILIES) == {*MADE, *elsewhere}


def test_its_logits_are_those_of_transformers_row_by_row(folder: Path) -> None:
    base = loaded(folder)
    with torch.inference_mode():
        found = base.logits(base.tokens(TEXTS)).numpy()
    np.testing.assert_allclose(found, [plain(base, text) for text in TEXTS], atol=2e-5)
    assert np.ptp(found) > 0.01


def test_its_adapter_is_trained_and_read_back(folder: Path, tmp_path: Path) -> None:
    chosen = settings(model=str(folder))
    slot = AdaptedModel(load_base(chosen, tmp_path), chosen)
    task = fit(slot.base)
    train_model(slot, task, chosen, tmp_path / "checkpoint", Progress())
    trained = score_tokens(slot.base, task.rows.tokens, 128)
    assert any(value.abs().max() > 1e-4 for name, value in slot.parameters().items() if "lora_B" in name)
    for name, content in slot.files().items():
        (tmp_path / name).write_bytes(content)
    slot.fresh(1)
    before = score_tokens(slot.base, task.rows.tokens, 128)
    assert np.abs(before - trained).max() > 1e-3
    slot.load(tmp_path)
    np.testing.assert_allclose(score_tokens(slot.base, task.rows.tokens, 128), trained, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "modernbert", "deberta-v2", "distilbert", "electra", "gpt2", "t5"])
def test_any_other_is_refused_by_its_type_before_its_weights_are_read(
    kind: str, bases_root: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint("tiny:gemma3", bases_root), tmp_path / "model"))
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(InputError) as caught:
        load_base(settings(model=str(folder)), bases_root)
    assert (
        f"of backbone 'tiny' is of type '{kind}', which is not supported: use one of the families Gemma 3, Qwen3"
        in str(caught.value)
    )
