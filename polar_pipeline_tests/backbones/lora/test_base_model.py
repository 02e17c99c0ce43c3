"""Logits of a batch are those of transformers for each row alone, though no mask is given and only one token goes through the head."""

import numpy as np
import pytest
import torch

from polar_pipeline.backbones.lora.base_model import BaseModel

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
