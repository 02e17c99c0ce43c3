"""Adapters are stored once by content, come back exactly, and are refused when they are not what was asked for."""

from pathlib import Path

import numpy as np
import pytest

from polar_pipeline.backbones.artifacts import (
    META,
    WEIGHTS,
    AdapterRef,
    check_provenance,
    damaged_adapters,
    load_adapter,
    save_adapter,
)
from polar_pipeline.errors import InputError

TENSORS = {"weights": np.arange(6, dtype="float32").reshape(2, 3), "keys": np.array([1, 2**63], dtype="uint64")}


PROVENANCE = {
    "backbone": "linear", "language": "deu", "config_fingerprint": "c" * 64, "posts_fingerprint": "p" * 64
}  # fmt: skip


def save(root: Path, value: int = 1) -> AdapterRef:
    return save_adapter(root, TENSORS, {"value": value}, PROVENANCE)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    tensors, meta = load_adapter(tmp_path, save(tmp_path))
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype
    assert meta["value"] == 1
    assert meta["provenance"]["language"] == "deu"


def test_same_content_same_place_and_no_pickle(tmp_path: Path) -> None:
    first, second, other = save(tmp_path), save(tmp_path), save(tmp_path, value=2)
    assert first == second
    assert other.path != first.path
    assert sorted(file.name for file in (tmp_path / first.path).iterdir()) == [WEIGHTS, META]


@pytest.mark.parametrize("file", [WEIGHTS, META])
def test_a_changed_byte_is_refused(tmp_path: Path, file: str) -> None:
    ref = save(tmp_path)
    path = tmp_path / ref.path / file
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"was changed after it was written.*materialize linear_adapter for deu again"):
        load_adapter(tmp_path, ref)


@pytest.mark.parametrize("file", [WEIGHTS, META])
def test_a_damaged_copy_is_replaced_by_the_same_content(tmp_path: Path, file: str) -> None:
    ref = save(tmp_path)
    path = tmp_path / ref.path / file
    content = path.read_bytes()
    for damage in (lambda: path.write_bytes(content[:-2]), path.unlink, (path.parent / "more").touch):
        damage()
        assert save(tmp_path) == ref
        assert path.read_bytes() == content and load_adapter(tmp_path, ref)[1]["value"] == 1


def test_a_lost_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_adapter(tmp_path / "elsewhere", save(tmp_path))


def test_every_mismatch_of_provenance_is_named(tmp_path: Path) -> None:
    ref = save(tmp_path)
    check_provenance(ref, PROVENANCE)
    with pytest.raises(
        InputError, match=r"language is 'deu', not 'swa'; posts_fingerprint is 'pppppppppppp', not 'qqqqqqqqqqqq'"
    ):
        check_provenance(ref, PROVENANCE | {"language": "swa", "posts_fingerprint": "q" * 64})


def test_a_changed_adapter_is_found(tmp_path: Path) -> None:
    ref = save(tmp_path)
    assert not damaged_adapters(tmp_path)
    (tmp_path / ref.path / "meta.json").write_text("{}")
    assert damaged_adapters(tmp_path) == [tmp_path / ref.path]
