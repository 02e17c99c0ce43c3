"""Which files of trained models can go."""

import json
import os
import time
from pathlib import Path

from polar_pipeline.backbones.unused import damaged_adapters, unused_model_files
from polar_pipeline_tests.backbones.test_artifacts import save

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


def test_a_changed_adapter_is_found(tmp_path: Path) -> None:
    ref = save(tmp_path)
    assert not damaged_adapters(tmp_path)
    put(tmp_path / ref.path / "meta.json", "{}")
    assert damaged_adapters(tmp_path) == [tmp_path / ref.path]
