"""A model is finished or not, never half; a disk that fills leaves what was there."""

from pathlib import Path

import numpy as np
import pytest

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.backbones.lora.work import Work
from polar_pipeline.errors import InputError

REF = AdapterRef(
    path="tiny/deu/x", sha256="s", backbone="tiny", language="deu", config_fingerprint="c", posts_fingerprint="p"
)
FILES = {"a.safetensors": b"weights", "b.json": b"{}"}
LOGITS = np.array([0.1, -1e-17, 3.0000000000000004])


def work(root: Path, key: str = "k" * 64) -> Work:
    return Work(root, "tiny", "deu", key)


def test_a_finished_model_comes_back_exactly_and_its_checkpoint_goes(tmp_path: Path) -> None:
    mine = work(tmp_path)
    assert mine.logits("final-seed-0") is None
    mine.checkpoint("final-seed-0").parent.mkdir(parents=True)
    mine.checkpoint("final-seed-0").write_bytes(b"x")
    mine.finish("final-seed-0", FILES, LOGITS)
    found = work(tmp_path).logits("final-seed-0")
    assert found is not None
    np.testing.assert_array_equal(found, LOGITS)
    assert work(tmp_path).files("final-seed-0") == FILES
    assert not mine.checkpoint("final-seed-0").exists()


def test_other_configurations_and_languages_do_not_meet(tmp_path: Path) -> None:
    work(tmp_path).finish("m", FILES, LOGITS)
    work(tmp_path).close(REF)
    for other in (
        work(tmp_path, "l" * 64),
        Work(tmp_path, "tiny", "eng", "k" * 64),
        Work(tmp_path, "b", "deu", "k" * 64),
    ):
        assert other.logits("m") is None and other.ref() is None


def test_a_closed_language_gives_the_disk_back_and_can_be_forgotten(tmp_path: Path) -> None:
    mine = work(tmp_path)
    assert mine.ref() is None
    mine.finish("m", FILES, LOGITS)
    mine.close(REF)
    assert work(tmp_path).ref() == REF
    assert not list((tmp_path / "work").rglob("*.safetensors"))
    mine.forget()
    mine.forget()
    assert work(tmp_path).ref() is None


def test_a_full_disk_leaves_no_half_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "b.json":
            raise OSError(28, "No space left on device")
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match="No space"):
            work(tmp_path).finish("m", FILES, LOGITS)
    assert work(tmp_path).logits("m") is None
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    work(tmp_path).finish("m", FILES, LOGITS)
    assert work(tmp_path).files("m") == FILES
