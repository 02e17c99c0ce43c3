"""Families of models: supported ones give what transformers gives and are trained, others are refused by name."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.base_model import BaseModel, score_tokens
from polar_pipeline.backbones.lora.loading import FAMILIES, load_base
from polar_pipeline.backbones.lora.training import train_model
from polar_pipeline.backbones.lora.tunable import AdaptedModel, FineTunedModel
from polar_pipeline.errors import InputError
from polar_pipeline.pretrained.tiny import _SHAPE, tiny_checkpoint, tokenizer
from polar_pipeline_tests.backbones.lora.examples import fit, settings
from polar_pipeline_tests.backbones.lora.test_base_model import TEXTS, plain

# as DeBERTa-v3 and mDeBERTa have them
_DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
_DEBERTA |= {"norm_rel_ebd": "layer_norm", "share_att_key": True, "position_buckets": 8}
_WINDOW = {"local_attention": 16, "global_attn_every_n_layers": 3, "cls_token_id": 2, "sep_token_id": 1}
_ENCODER = {key: value for key, value in _SHAPE.items() if key not in {"num_key_value_heads", "head_dim"}}

MADE: dict[str, Callable[[], Any]] = {
    "qwen2": lambda: transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(**{key: value for key, value in _SHAPE.items() if key != "head_dim"})
    ),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SHAPE)),
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**_SHAPE, sliding_window=32)),
    "roberta": lambda: transformers.RobertaForMaskedLM(transformers.RobertaConfig(**_ENCODER, type_vocab_size=1)),
    "bert": lambda: transformers.BertModel(transformers.BertConfig(**_ENCODER), add_pooling_layer=False),
    "bert with its pooler": lambda: transformers.BertForPreTraining(transformers.BertConfig(**_ENCODER)),
    "deberta-v2": lambda: transformers.DebertaV2ForMaskedLM(
        transformers.DebertaV2Config(**_ENCODER, type_vocab_size=0, **_DEBERTA)
    ),
    "modernbert": lambda: transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**_ENCODER, **_WINDOW)),
    "modernbert by its mean": lambda: transformers.ModernBertModel(
        transformers.ModernBertConfig(**_ENCODER, **_WINDOW, classifier_pooling="mean")
    ),
}
POOLERS = {"bert": "bert.pooler", "deberta-v2": "pooler", "modernbert": "head"}
WITH_POOLER = {"bert with its pooler": "bert.pooler", "modernbert": "head"}  # in the checkpoint


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
    for head in base.heads:
        for parameter in base.model.get_submodule(head).parameters():
            parameter.data.normal_(std=0.5)
    return base


def test_every_family_is_tested() -> None:
    elsewhere = {"gemma3_text", "qwen3", "xlm-roberta"}  # the shapes of `processes.SHAPES`
    assert set(FAMILIES) == {*(kind.partition(" ")[0] for kind in MADE), *elsewhere}


def test_its_logits_are_those_of_transformers_row_by_row(folder: Path) -> None:
    base = loaded(folder)
    with torch.inference_mode():
        found = base.logits(base.tokens(TEXTS)).numpy()
    np.testing.assert_allclose(found, [plain(base, text) for text in TEXTS], atol=2e-5)
    assert np.ptp(found) > 0.01


def test_a_padded_batch_gives_what_transformers_gives_it(folder: Path) -> None:
    """By its own class for classification, and with the padding and the mask of the tokenizer."""
    base = loaded(folder)
    given = base.tokenizer(TEXTS, truncation=True, max_length=64, padding=True, return_tensors="pt")
    kind = transformers.AutoModelForSequenceClassification
    own = kind.from_pretrained(folder, num_labels=1, dtype=torch.float32, pad_token_id=0).eval()
    assert type(own) is type(base.model)
    own.load_state_dict(base.model.state_dict())
    with torch.inference_mode():
        expected = own(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits[:, 0].numpy()
        np.testing.assert_allclose(base.logits(base.tokens(TEXTS)).numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2", "llama"])
def test_a_post_is_cut_at_the_positions_of_the_model(kind: str, tmp_path: Path) -> None:
    model = MADE[kind]()
    model.config.max_position_embeddings = 40
    type(model)(model.config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    base = load_base(settings(model=str(tmp_path), max_length=64), tmp_path)
    rows = base.tokens(["a" * 100, "b"])
    assert [len(row) for row in rows] == [39 if kind == "roberta" else 40, 2]  # RoBERTa's begin after padding's 0
    assert base.logits(rows).isfinite().all()


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


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_pooler_is_the_checkpoints_or_drawn_from_the_seed_and_trained(
    folder: Path, tmp_path: Path, tuning: str
) -> None:
    pooler = POOLERS.get(folder.name.partition(" ")[0], "")
    chosen = settings(model=str(folder), tuning=tuning, learning_rate=1e-3)
    kind = AdaptedModel if tuning == "lora" else FineTunedModel

    def heads(seed: int, root: Path | None = None) -> dict[str, torch.Tensor]:
        """What is trained whole, fresh or trained, in a base that was loaded anew: loading draws at random."""
        slot = kind(load_base(chosen, tmp_path), chosen)
        assert slot.base.pooler == pooler
        slot.fresh(seed)
        if root:
            train_model(slot, fit(slot.base, seed=seed), chosen, root, Progress())
        named = {re.sub(r"modules_to_save\.a\d\.", "", name): p for name, p in slot.base.model.named_parameters()}
        found = {name: value for name, value in named.items() if name.startswith(slot.base.heads)}
        return {name: value.detach().clone() for name, value in found.items() if "original_module" not in name}

    first, again, other = heads(1), heads(1), heads(2)
    trained = heads(1, tmp_path / "checkpoint")
    assert bool(pooler) == any(name.startswith(f"{pooler}.") for name in first)
    weights = [name for name, value in first.items() if value.ndim > 1]
    for name, value in first.items():
        assert value.dtype == torch.float32 and torch.equal(value, again[name]), name
        assert name.endswith("weight") or not value.any()
        assert not torch.equal(trained[name], value), name
    kept = folder.name in WITH_POOLER
    for name in weights:
        assert torch.equal(first[name], other[name]) == (kept and name.startswith(f"{pooler}.")), name
    if kept:
        saved = load_file(folder / "model.safetensors")
        assert torch.equal(first[f"{pooler}.dense.weight"], saved[f"{pooler}.dense.weight"])


def test_it_is_fine_tuned_whole_and_read_back(folder: Path, tmp_path: Path) -> None:
    chosen = settings(model=str(folder), tuning="full", learning_rate=1e-3)
    slot = FineTunedModel(load_base(chosen, tmp_path), chosen)
    task = fit(slot.base)
    train_model(slot, task, chosen, tmp_path / "checkpoint", Progress())
    trained = score_tokens(slot.base, task.rows.tokens, 128)
    for name, content in slot.files().items():
        (tmp_path / name).write_bytes(content)
    slot.fresh(1)
    slot.load(tmp_path)
    np.testing.assert_array_equal(score_tokens(slot.base, task.rows.tokens, 128), trained)
    own = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1).eval()
    given = torch.from_numpy(task.rows.tokens[0][None])
    with torch.inference_mode():
        np.testing.assert_allclose(float(own(input_ids=given).logits), trained[0], atol=1e-5)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_heads_are_float32_beside_a_trunk_in_bfloat16(folder: Path, tmp_path: Path, tuning: str) -> None:
    chosen = settings(model=str(folder), dtype="bfloat16", tuning=tuning)
    kind = AdaptedModel if tuning == "lora" else FineTunedModel
    slot = kind(load_base(chosen, tmp_path), chosen)
    parameters = slot.fresh(1)
    logits = slot.base.logits(slot.base.tokens(TEXTS))
    logits.sum().backward()
    assert logits.dtype == torch.float32 and logits.isfinite().all()
    heads = tuple(f"base_model.model.{name}" if tuning == "lora" else name for name in slot.base.heads)
    for name, parameter in parameters.items():
        assert (parameter.dtype == torch.float32) == name.startswith(heads), name


def test_plain_peft_reads_its_adapter(folder: Path, tmp_path: Path) -> None:
    chosen = settings(model=str(folder))
    slot = AdaptedModel(load_base(chosen, tmp_path), chosen)
    task = fit(slot.base)
    train_model(slot, task, chosen, tmp_path / "checkpoint", Progress())
    for name, content in slot.files().items():
        (tmp_path / name).write_bytes(content)
    own = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(own, tmp_path).eval()
    rows = task.rows.tokens[:4]
    with torch.inference_mode():
        found = [float(model(input_ids=torch.from_numpy(row[None])).logits) for row in rows]
    np.testing.assert_allclose(found, score_tokens(slot.base, rows, 128), atol=1e-5)


@pytest.mark.parametrize(
    "kind", ["gemma4_text", "deberta", "modernbert-decoder", "distilbert", "electra", "gpt2", "t5"]
)
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
