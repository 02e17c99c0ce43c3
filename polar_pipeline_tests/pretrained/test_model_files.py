"""A model before it is loaded: what is wrong with its settings, which weights it has, and tiny checkpoints."""

import json
import os
import shutil
from pathlib import Path

import pytest

from polar_pipeline.errors import InputError
from polar_pipeline.pretrained import model_files
from polar_pipeline.pretrained.model_files import check_source, folder_identity
from polar_pipeline.pretrained.tiny import tiny_checkpoint
from polar_pipeline_tests.backbones.lora.examples import settings


@pytest.mark.parametrize("model", ["./gone", "/gone/model", "../a", "~/model", "a/b/c"])
def test_a_folder_that_does_not_exist(model: str) -> None:
    with pytest.raises(InputError, match=r"of backbone 'tiny' is no folder: correct its path, or give the name"):
        check_source(settings(model=model).source)


def test_a_tiny_model_that_does_not_exist_and_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'tiny:gemma4' is no tiny model: use one of tiny:gemma3"):
        check_source(settings(model="tiny:gemma4").source)
    with pytest.raises(InputError, match=r"holds no config\.json"):
        check_source(settings(model=str(tmp_path)).source)


@pytest.mark.parametrize("model", ["google/gemma-3-12b-pt", "gpt2", "tiny:qwen3"])
def test_a_name_on_a_hub_and_a_tiny_one_pass(model: str) -> None:
    check_source(settings(model=model).source)


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
