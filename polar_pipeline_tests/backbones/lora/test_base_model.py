"""Logits of a batch are those of transformers for each row alone, and scores come back in the order of the rows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from polar_pipeline.backbones.lora import base_model
from polar_pipeline.backbones.lora.base_model import BaseModel, causal_mask, score_tokens
from polar_pipeline.backbones.lora.loading import load_base
from polar_pipeline.errors import InputError
from polar_pipeline_tests.backbones.lora.examples import Reads, settings

TEXTS = [
    "a",
    "",
    "Ein Satz, der kurz ist.",
    "länger " * 6,
    "z" * 62,
    "🎉" * 40,
]  # the last ones are longer than the window of 32


def plain(base: BaseModel, text: str) -> float:
    """What transformers gives one row by its own tokenizer call and forward pass."""
    given = base.tokenizer([text], truncation=True, max_length=base.max_length, return_tensors="pt")
    with torch.inference_mode():
        return float(base.model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits[0, 0])


def test_a_batch_gives_what_transformers_gives_each_row_alone(base: BaseModel) -> None:
    rows = base.tokens(TEXTS)
    assert max(map(len, rows)) == 64 and min(map(len, rows)) == 1
    with torch.inference_mode():
        found = base.logits(rows)
    assert found.dtype == torch.float32 and found.shape == (len(TEXTS),)
    np.testing.assert_allclose(found.numpy(), [plain(base, text) for text in TEXTS], atol=1e-5)
    assert np.ptp(found.numpy()) > 1e-3  # a hundred times the tolerance, or any pooling would pass


def test_the_order_of_a_batch_and_who_is_in_it_do_not_matter(base: BaseModel) -> None:
    rows = base.tokens(TEXTS)
    with torch.inference_mode():
        forward, backward = base.logits(rows), base.logits(rows[::-1])
        few = base.logits(rows[1:3])
    torch.testing.assert_close(forward, backward.flip(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(forward[1:3], few, atol=1e-5, rtol=0)


@pytest.mark.parametrize("spelled", ["<pad>", "<bos>", "<eos>", "<unk>"])
def test_a_text_that_spells_a_special_token_is_text(base: BaseModel, spelled: str) -> None:
    (row,) = base.tokens([f"a {spelled} b"])
    assert len(row) == 1 + len(f"a {spelled} b")  # one token a byte, after <bos>
    assert (row[1:] > 3).all()
    assert base.tokenizer.decode(row[1:]) == f"a {spelled} b"


def test_no_texts_and_no_tokens(base: BaseModel) -> None:
    assert base.tokens([]) == []
    (row,) = base.tokens([""])
    assert row.tolist() == [2]


def test_a_tokenizer_that_adds_nothing_gives_an_empty_text_one_token(base: BaseModel) -> None:
    class Bare:
        eos_token_id = 1

        def __call__(self, texts: list[str], **given: object) -> dict[str, list[list[int]]]:
            return {"input_ids": [[] for _ in texts]}

    bare = BaseModel(base.model, Bare(), base.head, base.name, base.identity, "cpu", base.dtype, 64)
    assert [row.tolist() for row in bare.tokens(["", ""])] == [[1], [1]]


def test_a_post_is_cut_at_its_end(base: BaseModel) -> None:
    (row,) = base.tokens(["b" * 500])
    (short,) = base.tokens(["b" * 63])
    assert row.tolist() == short.tolist()


def test_only_encoders_are_not_causal(base: BaseModel) -> None:
    assert base.causal == ("roberta" not in base.name)
    assert sum(parameter.requires_grad for parameter in base.model.parameters()) == 0


def test_a_copy_to_a_gpu_is_pinned_and_does_not_wait(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def pinned(tensor: torch.Tensor) -> torch.Tensor:
        asked.append("pinned")
        return tensor

    def moved(tensor: torch.Tensor, *where: object, **how: object) -> torch.Tensor:
        asked.append((where, how))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(torch.Tensor, "to", moved)
    values = np.arange(3)
    assert base.to_device(values).tolist() == [0, 1, 2] and not asked
    there = BaseModel(base.model, base.tokenizer, base.head, base.name, base.identity, "cuda", base.dtype, 64)
    there.to_device(values)
    assert asked == ["pinned", (("cuda",), {"non_blocking": True})]


WINDOW = 32  # of the tiny Gemma 3


def rows(*lengths: int) -> list[np.ndarray]:
    return [np.random.default_rng(length).integers(4, 260, length) for length in lengths]


def logits(base: BaseModel, given: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, mask: object) -> torch.Tensor:
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(base_model, "causal_mask", mask)
        return base.logits(given)


@pytest.mark.parametrize("lengths", [(3, 31, 9), (WINDOW, 5), (WINDOW + 1, 5), (64, 40, 33, 2)])
def test_logits_are_those_with_the_masks_of_transformers(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, ...]
) -> None:
    given = rows(*lengths)
    expected = logits(base, given, monkeypatch, lambda *_: None)
    torch.testing.assert_close(logits(base, given, monkeypatch, causal_mask), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", ["gemma3", "gemma3_multimodal"])
def test_a_row_longer_than_the_window_needs_a_mask(
    bases_root: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    """The trap is real: told that there is none, attention sees past the window."""
    base = load_base(settings(model=f"tiny:{shape}", max_length=64), bases_root)
    config = base.model.config
    wrong = logits(base, rows(WINDOW + 8), monkeypatch, lambda *_: dict.fromkeys(config.layer_types))
    right = logits(base, rows(WINDOW + 8), monkeypatch, causal_mask)
    assert float((wrong - right).abs().max()) > 1e-4
    assert causal_mask(config, WINDOW) == {"full_attention": None, "sliding_attention": None}
    assert causal_mask(config, WINDOW + 1) is None


def test_without_a_window_no_length_needs_a_mask(bases_root: Path) -> None:
    config = load_base(settings(model="tiny:qwen3"), bases_root).model.config
    assert causal_mask(config, 900) == {"full_attention": None}


def test_other_attention_and_other_models_are_left_to_transformers(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = base.model.config
    assert (causal_mask(config, 8) is None) == (not base.causal)
    monkeypatch.setattr(config, "_attn_implementation", "eager")  # which sees everything where no mask is given
    assert causal_mask(config, 8) is None


@pytest.mark.parametrize("shape", ["gemma3", "gemma3_multimodal", "qwen3"])
def test_nothing_is_read_back_in_a_forward_and_backward_pass(bases_root: Path, shape: str) -> None:
    base = load_base(settings(model=f"tiny:{shape}", tuning="full"), bases_root)
    base.model.requires_grad_(True)
    with Reads() as reads:
        base.logits(rows(5, 9)).sum().backward()
    assert reads.count == 0
    with reads:
        base.logits(rows(5)).sum().item()
    assert reads.count == 1  # a read would be seen


def test_rows_get_their_own_logits_whatever_the_budget(base: BaseModel) -> None:
    rows = base.tokens(["x" * length for length in (30, 1, 60, 7, 7, 25)] + [""])
    with torch.inference_mode():
        alone = np.array([float(base.logits([row])[0]) for row in rows])
    for budget in (8, 64, 4096):
        found = score_tokens(base, rows, budget)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, alone, atol=1e-5)


def test_nothing_gives_nothing(base: BaseModel) -> None:
    assert score_tokens(base, [], 64).shape == (0,)


def test_dropout_is_off_while_scoring_and_on_again_after(base: BaseModel) -> None:
    rows = base.tokens(["a", "bc"])
    base.model.train()
    try:
        first, second = score_tokens(base, rows, 64), score_tokens(base, rows, 64)
        assert base.model.training
    finally:
        base.model.eval()
    np.testing.assert_array_equal(first, second)


def test_out_of_memory_halves_the_batches(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = base.tokens(["a" * 5, "b" * 9, "c" * 3, "d" * 7] * 4)
    expected, whole, sizes = score_tokens(base, rows, 16), BaseModel.logits, []

    def small(mine: BaseModel, batch: list[np.ndarray]) -> torch.Tensor:
        sizes.append(len(batch) * max(map(len, batch)))
        if sizes[-1] > 20:
            raise torch.OutOfMemoryError
        return whole(mine, batch)

    monkeypatch.setattr(BaseModel, "logits", small)
    np.testing.assert_allclose(score_tokens(base, rows, 16), expected, atol=1e-5)
    assert max(sizes) > 20 and not base.model.training
    monkeypatch.setattr(BaseModel, "logits", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError))
    with pytest.raises(InputError, match="not enough memory to score"):
        score_tokens(base, rows, 16)
