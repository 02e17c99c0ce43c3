"""What was written comes back exactly; what is damaged is found, and half a file never appears."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.backbones.lora.checkpoints import ModelStore, read_checkpoint, unused_model_files, write_checkpoint
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


REF = AdapterRef(
    path="tiny/deu/x", sha256="s", backbone="tiny", language="deu", config_fingerprint="c", posts_fingerprint="p"
)
FILES = {"a.safetensors": b"weights", "b.json": b"{}"}
LOGITS = np.array([0.1, -1e-17, 3.0000000000000004])


def work(root: Path, key: str = "k" * 64) -> ModelStore:
    return ModelStore(root, "tiny", "deu", key)


def test_a_finished_model_comes_back_exactly_and_its_checkpoint_goes(tmp_path: Path) -> None:
    mine = work(tmp_path)
    assert mine.logits("final-seed-0") is None
    mine.checkpoint("final-seed-0").parent.mkdir(parents=True)
    mine.checkpoint("final-seed-0").write_bytes(b"x")
    mine.save_model("final-seed-0", FILES, LOGITS)
    found = work(tmp_path).logits("final-seed-0")
    assert found is not None
    np.testing.assert_array_equal(found, LOGITS)
    assert work(tmp_path).files("final-seed-0") == FILES
    assert not mine.checkpoint("final-seed-0").exists()


def test_other_configurations_and_languages_do_not_meet(tmp_path: Path) -> None:
    work(tmp_path).save_model("m", FILES, LOGITS)
    work(tmp_path).set_finished(REF)
    for other in (
        work(tmp_path, "l" * 64),
        ModelStore(tmp_path, "tiny", "eng", "k" * 64),
        ModelStore(tmp_path, "b", "deu", "k" * 64),
    ):
        assert other.logits("m") is None and other.finished() is None


def test_a_closed_language_gives_the_disk_back_and_can_be_forgotten(tmp_path: Path) -> None:
    mine = work(tmp_path)
    assert mine.finished() is None
    mine.save_model("m", FILES, LOGITS)
    mine.set_finished(REF)
    assert work(tmp_path).finished() == REF
    assert not list((tmp_path / "work").rglob("*.safetensors"))
    mine.forget_finished()
    mine.forget_finished()
    assert work(tmp_path).finished() is None


def test_a_full_disk_leaves_no_half_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "b.json":
            raise OSError(28, "No space left on device")
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match="No space"):
            work(tmp_path).save_model("m", FILES, LOGITS)
    assert work(tmp_path).logits("m") is None
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    work(tmp_path).save_model("m", FILES, LOGITS)
    assert work(tmp_path).files("m") == FILES


MONTHS_AGO = time.time() - 100 * 86400


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_what_is_named_stays_with_what_it_names_itself(tmp_path: Path) -> None:
    pooled, mine, old = (f"{digit}" * 16 for digit in "abc")
    put(tmp_path / "big" / "all" / pooled / "meta.json", "{}")
    share = json.dumps({"pooled": {"path": f"big/all/{pooled}"}})
    put(tmp_path / "big" / "deu" / mine / "meta.json", share)
    put(tmp_path / "big" / "deu" / old / "meta.json", share)
    gone = {
        tmp_path / "big" / "deu" / old,
        put(tmp_path / "finished" / "big" / "deu" / "1.json", json.dumps({"path": f"big/deu/{old}"})),
        put(tmp_path / "figures" / "big" / "deu" / f"{old}-training.json"),
        put(tmp_path / "figures" / "big" / "deu" / f"{old}-2.json"),
        put(tmp_path / "scored" / "big" / "deu" / "2.logits"),
    }
    put(tmp_path / "finished" / "big" / "deu" / "3.json", json.dumps({"path": f"big/deu/{mine}"}))
    put(tmp_path / "figures" / "big" / "deu" / f"{mine}-4.json")
    put(tmp_path / "scored" / "big" / "deu" / "4.logits")
    put(tmp_path / "bases" / "tiny" / "config.json")
    assert set(unused_model_files(tmp_path, f'"sha256": "{mine}0000"')) == gone


def test_interrupted_trainings_stay_while_they_may_be_continued(tmp_path: Path) -> None:
    works = [put(tmp_path / "work" / "big" / "deu" / name / "final.checkpoint").parent for name in ("1", "2", "3")]
    assert not list(unused_model_files(tmp_path, ""))
    for place, work in enumerate(works[:2]):
        for path in (*work.iterdir(), work):
            os.utime(path, (MONTHS_AGO + place,) * 2)
    assert set(unused_model_files(tmp_path, "")) == set(works[:2])
    for path in (*works[2].iterdir(), works[2]):
        os.utime(path, (MONTHS_AGO + 3,) * 2)
    assert set(unused_model_files(tmp_path, "")) == set(works[:2])
