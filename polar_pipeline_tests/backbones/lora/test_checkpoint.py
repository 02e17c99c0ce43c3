"""What was written comes back, and half of it never does."""

from pathlib import Path

import pytest
import torch

from polar_pipeline.backbones.lora.checkpoint import read_checkpoint, write_checkpoint
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.settings.profile import load_profile


def test_tensors_and_facts_come_back(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4).t(),
        "b": torch.tensor(3.0),
        "c": torch.get_rng_state(),
        "d": torch.ones(2).bfloat16(),
    }
    facts = {"position": 3, "best_loss": None, "x": 0.1}
    write_checkpoint(tmp_path / "x.checkpoint", tensors, facts)
    found = read_checkpoint(tmp_path / "x.checkpoint")
    assert found is not None and found[1] == facts
    assert found[0].keys() == tensors.keys()
    assert all(torch.equal(found[0][name], tensors[name]) for name in tensors)
    assert [file.name for file in tmp_path.iterdir()] == ["x.checkpoint"]


def test_none_is_none(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "x.checkpoint") is None


@pytest.mark.parametrize("length", [0, 4, 9, 200, -1])
def test_what_was_cut_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.checkpoint"
    write_checkpoint(path, {"a": torch.ones(100)}, {"position": 1})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match="is damaged"):
        read_checkpoint(path)


def test_a_safetensors_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "x.checkpoint")
    with pytest.raises(InputError, match="is damaged"):
        read_checkpoint(tmp_path / "x.checkpoint")


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.checkpoint"
    write_checkpoint(path, {"a": torch.ones(2)}, {"position": 1})
    monkeypatch.setattr(
        Path, "write_bytes", lambda *given: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(InputError, match="its disk is full"):
        write_checkpoint(path, {"a": torch.ones(2)}, {"position": 2})
    found = read_checkpoint(path)
    assert found is not None and found[1] == {"position": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.checkpoint"]


def test_large_models_are_saved_every_five_minutes() -> None:
    """A checkpoint of the 27B is 1.4 GB: every minute, writing it would cost several percent of the time."""
    profile = load_profile("gpu")
    large = [backbone for backbone in profile.backbones if isinstance(backbone, LoraSettings)]
    assert len(large) == 2 and all(backbone.checkpoint_seconds == 300 for backbone in large)
