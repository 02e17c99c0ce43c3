"""A model before it is loaded: what is wrong with its settings, which weights it has, and tiny checkpoints."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from polar_pipeline.backbones.lora import model_files
from polar_pipeline.backbones.lora.model_files import check_model_settings, folder_identity, tiny_checkpoint, tokenizer
from polar_pipeline.errors import InputError
from polar_pipeline_tests.backbones.lora.examples import settings
from polar_pipeline_tests.backbones.lora.processes import SHAPES


@pytest.mark.parametrize("model", ["./gone", "/gone/model", "../a", "~/model", "a/b/c"])
def test_a_folder_that_does_not_exist(model: str) -> None:
    with pytest.raises(InputError, match=r"of backbone 'tiny' is no folder: correct its path, or give the name"):
        check_model_settings(settings(model=model))


def test_a_tiny_model_that_does_not_exist_and_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'tiny:gemma4' is no tiny model: use one of tiny:gemma3"):
        check_model_settings(settings(model="tiny:gemma4"))
    with pytest.raises(InputError, match=r"holds no config\.json"):
        check_model_settings(settings(model=str(tmp_path)))


@pytest.mark.parametrize("model", ["google/gemma-3-12b-pt", "gpt2", "tiny:qwen3"])
def test_a_name_on_a_hub_and_a_tiny_one_pass(model: str) -> None:
    check_model_settings(settings(model=model, target_modules=["whatever"]))


@pytest.mark.parametrize("shape", SHAPES)
def test_layers_that_a_folder_does_not_have_are_named(shape: str, bases_root: Path) -> None:
    folder = str(tiny_checkpoint(f"tiny:{shape}", bases_root))
    some = ["query", "value"] if shape == "xlm_roberta" else ["q_proj", "v_proj"]
    check_model_settings(settings(model=folder, target_modules=some))
    check_model_settings(settings(model=folder))
    check_model_settings(settings(model=folder, target_modules=["q_prj"], tuning="full"))
    with pytest.raises(
        InputError, match=rf"target_modules q_prj are no layers of .*, use all-linear or some of .*{some[0]}"
    ):
        check_model_settings(settings(model=folder, target_modules=[*some, "q_prj"]))


@pytest.mark.parametrize("content", [b"", b"\xff" * 12, b"\x05\0\0\0\0\0\0\0[1,2]"])
def test_damaged_weights_are_left_to_loading(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    check_model_settings(settings(model=str(tmp_path), target_modules=["q_proj"]))


@pytest.fixture
def folder(bases_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint("tiny:gemma3", bases_root), tmp_path / "model"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_byte_anywhere_in_a_file_of_the_model_makes_it_another(folder: Path, tmp_path: Path, name: str) -> None:
    cache = tmp_path / "hashes.json"
    before = folder_identity(folder, cache)
    assert folder_identity(folder, cache) == before
    file = folder / name
    stat, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # neither its size nor this time tells
    assert folder_identity(folder, cache) != before
    content[len(content) * 2 // 3] ^= 1
    file.write_bytes(content)
    assert folder_identity(folder, cache) == before


def test_every_shard_counts_and_what_is_no_part_of_the_model_does_not(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "hashes.json"
    before = folder_identity(folder, cache)
    (folder / "README.md").write_text("about it")
    (folder / "training_log.txt").write_text("long ago")
    assert folder_identity(folder, cache) == before
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"more")
    more = folder_identity(folder, cache)
    (folder / "model.safetensors.index.json").write_text("{}")
    assert len({before, more, folder_identity(folder, cache)}) == 3


def test_large_files_are_hashed_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    digest = model_files.file_sha256

    def counted(file: Path) -> str:
        hashed.append(file.name)
        return digest(file)

    monkeypatch.setattr(model_files, "file_sha256", counted)
    cache = tmp_path / "hashes.json"
    first = folder_identity(folder, cache)
    assert folder_identity(folder, cache) == first
    assert hashed.count("model.safetensors") == 2  # it was written a moment ago, and might change within a tick
    monkeypatch.setattr(model_files, "_RECENT", 0)
    for _ in range(3):
        assert folder_identity(folder, cache) == first
    assert hashed.count("model.safetensors") == 3
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert folder_identity(folder, cache) != first
    assert hashed.count("model.safetensors") == 3 and hashed[-1] == "config.json"


@pytest.mark.parametrize("damage", ["flip", "cut", "list", "empty"])
def test_damaged_notes_of_hashes_are_not_believed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(model_files, "_RECENT", 0)
    cache = tmp_path / "hashes.json"
    expected = folder_identity(folder, cache)
    content = cache.read_text()
    digest = json.loads(content)["files"][str(folder / "model.safetensors")][-1]
    other = ("0" if digest[0] != "0" else "1") + digest[1:]
    damaged = {"flip": content.replace(digest, other), "cut": content[:-20], "list": "[]", "empty": ""}[damage]
    assert damaged != content
    cache.write_text(damaged)
    assert folder_identity(folder, cache) == expected
    assert cache.read_text() == content


def test_a_file_that_cannot_be_read_is_a_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(file: Path) -> str:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(model_files, "file_sha256", forbidden)
    with pytest.raises(InputError, match=r"model .*model cannot be read \(.*Permission denied.*\): allow it"):
        folder_identity(folder, tmp_path / "hashes.json")


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
