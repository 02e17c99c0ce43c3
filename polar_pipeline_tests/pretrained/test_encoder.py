"""Vectors are those of sentence-transformers, whatever the folder says, and a text's are the same in any company."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, StaticEmbedding, Transformer

from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.pretrained.encoder import Encoder, cache_file, equal_batches
from polar_pipeline.pretrained.encoder_loading import quantize_linear
from polar_pipeline.pretrained.tiny import tiny_checkpoint, tokenizer
from polar_pipeline.settings.models import Encoding, ModelSource
from polar_pipeline_tests.pretrained.hub import at, hub

TEXTS = [
    "Ein Satz.",
    "",
    "a",
    "Noch ein Satz, der länger ist als der erste.",
    "x" * 300,
    "<eos> kein Ende <pad>",
    "दो शब्द",
]


def encoder(model: Path | str, root: Path, **how: Any) -> Encoder:
    source = ModelSource(str(model), "main", "backbone 'encoder'")
    return Encoder(Encoding(source, precision=how.pop("precision", "float32"), **how), root)


def close(found: Floats, expected: Floats) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5)


def saved(modules: list[Any], folder: Path, **options: Any) -> Path:
    SentenceTransformer(modules=modules, device="cpu", **options).save(str(folder))
    return folder


def transformer(root: Path, shape: str = "xlm_roberta", longest: int = 64) -> Any:
    return Transformer(str(tiny_checkpoint(f"tiny:{shape}", root)), max_seq_length=longest)


def peer(folder: Path, texts: list[str], **options: Any) -> Floats:
    found: Floats = SentenceTransformer(str(folder), device="cpu").encode(texts, **options)
    return found


PLAIN = [text for text in TEXTS if "<" not in text]  # a text that spells a special token is text for us


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken", ("mean", "max"), "weightedmean"])
def test_a_folders_own_modules_length_and_prompt(pooling: Any, bases_root: Path, tmp_path: Path) -> None:
    parts = [transformer(bases_root), Pooling(64, pooling_mode=pooling)]
    width = parts[1].pooling_output_dimension
    parts += [Dense(width, 24), Normalize()]
    folder = saved(parts, tmp_path / "model", prompts={"query": "query: "}, default_prompt_name="query")
    found = encoder(folder, bases_root).embed(PLAIN)
    close(found, peer(folder, PLAIN))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    close(encoder(folder, bases_root, prompt="").embed(PLAIN), peer(folder, PLAIN, prompt=""))


def test_the_classification_prompt_is_taken_where_there_is_no_default(bases_root: Path, tmp_path: Path) -> None:
    prompts = {"query": "q: ", "Classification": "task: classification | query: "}
    folder = saved([transformer(bases_root), Pooling(64)], tmp_path / "model", prompts=prompts)
    close(encoder(folder, bases_root).embed(PLAIN), peer(folder, PLAIN, prompt=prompts["Classification"]))


def test_a_prompt_that_is_not_pooled(bases_root: Path, tmp_path: Path) -> None:
    parts = [transformer(bases_root), Pooling(64, include_prompt=False)]
    folder = saved(parts, tmp_path / "model", prompts={"query": "query: "}, default_prompt_name="query")
    close(encoder(folder, bases_root).embed(PLAIN), peer(folder, PLAIN))


@pytest.mark.parametrize("shape", ["xlm_roberta", "qwen3", "gemma3"])
def test_a_plain_folder_and_a_pooling_of_ones_own(shape: str, bases_root: Path, tmp_path: Path) -> None:
    close(encoder(f"tiny:{shape}", bases_root).embed(PLAIN), peer(tiny_checkpoint(f"tiny:{shape}", bases_root), PLAIN))
    last = saved([transformer(bases_root, shape, 1024), Pooling(64, "lasttoken")], tmp_path / "last")
    close(encoder(f"tiny:{shape}", bases_root, pooling="last_token").embed(PLAIN), peer(last, PLAIN))


def test_middle_layers_come_before_the_last(bases_root: Path) -> None:
    found = encoder("tiny:xlm_roberta", bases_root, layers=(2, 5)).embed(["Ein Satz."])
    model = SentenceTransformer(str(tiny_checkpoint("tiny:xlm_roberta", bases_root)), device="cpu")
    with torch.inference_mode():
        ids = model.tokenizer(["Ein Satz."], return_tensors="pt")
        hidden = model[0].auto_model(**ids, output_hidden_states=True).hidden_states
    close(found, torch.cat([hidden[layer].mean(dim=1) for layer in (2, 5, 6)], dim=1).numpy())
    with pytest.raises(InputError, match=r"backbone 'encoder' asks for layer 7 and its model has 6: name layers"):
        encoder("tiny:xlm_roberta", bases_root, layers=(7,)).embed(["a"])


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_text_has_the_same_vector_in_any_company(precision: str, bases_root: Path) -> None:
    model = encoder("tiny:xlm_roberta", bases_root, precision=precision)
    texts = [text for text in (f"{'wort ' * (place % 23)}{place}" for place in range(150))]
    whole = model.embed(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    np.testing.assert_array_equal(model.embed([texts[place] for place in order]), whole[order])
    for place in (0, 7, 22, 149):
        np.testing.assert_array_equal(model.embed([texts[place]])[0], whole[place])
    reference = encoder("tiny:xlm_roberta", bases_root).embed(texts)
    cosine = (whole * reference).sum(1) / np.linalg.norm(whole, axis=1) / np.linalg.norm(reference, axis=1)
    assert cosine.min() > 0.98


@given(st.lists(st.integers(1, 600), max_size=80))
@settings(max_examples=50)
def test_batches_hold_every_row_once_and_few_tokens(lengths: list[int]) -> None:
    found = equal_batches(np.array(lengths, dtype=np.int64))
    rows = [row for batch, _ in found for row in batch.tolist()]
    assert sorted(rows) == list(range(len(lengths)))
    for batch, length in found:
        assert all(0 <= length - lengths[row] < 8 for row in batch) and (len(batch) * length <= 1024 or len(batch) == 1)


def test_8_bits_are_near_and_the_same_in_any_batch() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 16, bias=False))
    inputs = torch.randn(40, 64)
    with torch.inference_mode():
        expected = model(inputs)
        quantize_linear(model)
        found = model(inputs)
        assert torch.equal(torch.cat([model(row[None]) for row in inputs]), found)
    assert (found - expected).norm() / expected.norm() < 0.03


def test_what_a_vector_depends_on_is_in_its_identity(bases_root: Path, tmp_path: Path) -> None:
    plain = encoder("tiny:xlm_roberta", bases_root)
    others = [{"prompt": "query: "}, {"pooling": "cls"}, {"layers": (3,)}, {"max_length": 16}, {"precision": "int8"}]
    found = [encoder("tiny:xlm_roberta", bases_root, **how) for how in others]
    assert len({one.identity for one in [plain, *found]}) == len(others) + 1
    assert len({cache_file(one.encoding) for one in [plain, *found]}) == len(others) + 1
    same = encoder("tiny:xlm_roberta", bases_root, device="cpu", threads=2)
    assert same.identity == plain.identity and cache_file(same.encoding) == cache_file(plain.encoding)
    folder = saved([transformer(bases_root), Pooling(64), Dense(64, 8)], tmp_path / "model")
    before = encoder(folder, bases_root).identity
    config = folder / "1_Pooling" / "config.json"
    config.write_text(config.read_text().replace('"mean"', '"cls"'))
    assert encoder(folder, bases_root).identity != before


def static_folder(folder: Path, **config: Any) -> Path:
    """A model2vec folder: words, their vectors, and weights."""
    from model2vec import StaticModel
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = ["[PAD]", "[UNK]", *"abcdef"]
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer, made.normalizer = pre_tokenizers.Whitespace(), normalizers.Lowercase()
    vectors = np.random.default_rng(0).normal(size=(len(words), 5)).astype(np.float32)
    weights = np.linspace(0.5, 2, len(words)).astype(np.float32)
    StaticModel(vectors, made, weights=weights, **config).save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("normalize", [True, False])
def test_model2vec(normalize: bool, tmp_path: Path) -> None:
    from model2vec import StaticModel

    folder = static_folder(tmp_path / "static", normalize=normalize)
    texts = ["a b c", "A f", "d", "e e e a"]
    expected = StaticModel.from_pretrained(str(folder)).encode(texts)
    close(encoder(folder, tmp_path).embed(texts), expected)
    unknown = encoder(folder, tmp_path).embed(["a zzz b"])[0]
    other = encoder(folder, tmp_path).embed(["a b"])[0]
    np.testing.assert_allclose(unknown / np.linalg.norm(unknown), other / np.linalg.norm(other), atol=1e-5)


def test_static_embeddings_of_sentence_transformers(tmp_path: Path) -> None:
    fast = tokenizer()._tokenizer
    folder = saved([StaticEmbedding(fast, embedding_dim=7), Normalize()], tmp_path / "static")
    close(encoder(folder, tmp_path).embed(PLAIN[:1] + PLAIN[2:]), peer(folder, PLAIN[:1] + PLAIN[2:]))


def test_static_embeddings_know_no_layers_and_other_kinds_of_models_are_refused(tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import BoW

    with pytest.raises(InputError, match="has static embeddings, which know no layers: leave it out"):
        encoder(static_folder(tmp_path / "static"), tmp_path, layers=(2,)).embed(["a"])
    words = saved([BoW(vocab=["a", "b"])], tmp_path / "words")
    with pytest.raises(InputError, match=r"begins with a module BoW, which is not supported|holds no config"):
        encoder(words, tmp_path).embed(["a"])
    (tmp_path / "static" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"cannot be loaded as an encoder \(tokenizer\.json"):
        encoder(tmp_path / "static", tmp_path).embed(["a"])


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("precision", ["float32", "int8", "bfloat16"])
def test_a_checkpoint_in_half_precision(stored: torch.dtype, precision: str, bases_root: Path, tmp_path: Path) -> None:
    first = transformer(bases_root)
    folder = saved([first.to(stored), Pooling(64), Dense(64, 8).to(stored)], tmp_path / "model")
    found = encoder(folder, bases_root, precision=precision).embed(PLAIN)
    expected = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32}).encode(PLAIN)
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > (0.999 if precision == "float32" else 0.95)


def test_a_text_that_is_longer_than_the_positions_is_cut(bases_root: Path, tmp_path: Path) -> None:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = XLMRobertaConfig(vocab_size=300, max_position_embeddings=31, pad_token_id=0, **sizes)
    XLMRobertaModel(config).save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    found = encoder(tmp_path / "model", tmp_path).embed(["x" * 500, "x" * 29])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def broken(folder: Path, what: str) -> None:
    if what == "a layer missing":
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        save_file({n: w for n, w in weights.items() if "layer.5.output.dense" not in n}, folder / "model.safetensors")
    elif what == "cut":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    elif what == "a pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif what == "custom code":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(
            json.dumps(config | {"model_type": "own", "auto_map": {"AutoModel": "own.X"}})
        )
        (folder / "own.py").write_text("raise SystemExit('it ran')")
    elif what == "a foreign module":
        (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "os.system"}]))
    elif what == "an adapter":
        (folder / "adapter_config.json").write_text("{}")
    elif what == "a part with a pickle":
        (folder / "2_Dense").mkdir()
        (folder / "2_Dense" / "pytorch_model.bin").write_bytes(b"")
    elif what == "no configuration":
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_text("{")


BROKEN = {
    "a layer missing": r"lack 2 that its configuration asks for, such as encoder\.layer\.5\.output\.dense",
    "cut": "cannot be loaded as an encoder",
    "a pickle": r"has its weights in pytorch_model\.bin, and only safetensors are read",
    "custom code": r"needs code of its own \(own\), which is never run",
    "a foreign module": r"needs code of its own \(os\.system\), which is never run",
    "an adapter": "holds a LoRA adapter: merge it into its model",
    "a part with a pickle": r"2_Dense of backbone 'encoder' has its weights in pytorch_model\.bin",
    "no configuration": r"holds no config\.json",
    "no JSON": r"config\.json cannot be read",
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_folder_that_is_no_encoder_is_one_sentence(what: str, bases_root: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny_checkpoint("tiny:xlm_roberta", bases_root), tmp_path / "model"))
    broken(folder, what)
    with pytest.raises(InputError, match=BROKEN[what]) as caught:
        encoder(folder, tmp_path).embed(["a"])
    assert "\n" not in str(caught.value)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"model\.gguf' of backbone 'encoder' is a file: give the folder of a model"):
        encoder(tmp_path / "model.gguf", tmp_path).embed(["a"])


SCRIPT = """
import pathlib, sys
from polar_pipeline.errors import InputError
from polar_pipeline.pretrained.encoder import Encoder
from polar_pipeline.settings.models import Encoding, ModelSource
from polar_pipeline_tests.pretrained.hub import at, hub
for model in ("polar/open", "polar/open", "polar/missing"):
    source = ModelSource(model, "main", "backbone 'encoder'")
    try:
        print(Encoder(Encoding(source, precision="float32"), pathlib.Path("."), print).embed(["a"]).shape)
    except InputError as error:
        print(error)
"""


def ask(address: str, cache: Path) -> list[str]:
    variables = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | at(address, cache)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=cache,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_model_of_the_hub_is_downloaded_once_and_then_needs_no_network(bases_root: Path, tmp_path: Path) -> None:
    with hub("polar/open", tiny_checkpoint("tiny:xlm_roberta", bases_root)) as address:
        first, again = (ask(address, tmp_path) for _ in range(2))
    assert re.fullmatch(r"downloading model polar/open once: [45] files, 1\.\d MB", first[0])
    assert first[1:3] == again[:2] == ["(1, 64)"] * 2
    assert not list(tmp_path.rglob("*.bin")) and not list(tmp_path.rglob("*.png"))
    offline = ask("http://127.0.0.1:9", tmp_path)
    assert offline[:2] == ["(1, 64)"] * 2
    sentence = (
        r"model 'polar/missing' .*of backbone 'encoder' cannot be loaded .*: .*without a network, name the folder"
    )
    assert all(re.match(sentence, answers[-1]) for answers in (first, again, offline))
