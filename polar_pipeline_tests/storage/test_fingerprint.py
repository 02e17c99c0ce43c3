"""Fingerprints depend on content and on nothing else."""

from pathlib import Path

import pandas as pd
import pytest

from polar_pipeline.storage.fingerprint import canonical_json, fingerprint, folder_sha256, frame_fingerprint


def test_order_of_keys_does_not_matter_and_values_do() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert canonical_json({"b": "ü", "a": None}) == '{"a":null,"b":"ü"}'.encode()


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        fingerprint({"a": float("nan")})


def test_frames_differ_by_value_column_and_order() -> None:
    frame = pd.DataFrame({"x": ["a", "b"], "y": pd.array([1, None], dtype="Int8")})
    same = frame_fingerprint(frame, ["x", "y"])
    assert frame_fingerprint(frame.copy(), ["x", "y"]) == same
    assert frame_fingerprint(frame.iloc[::-1], ["x", "y"]) != same
    assert frame_fingerprint(frame, ["y", "x"]) != same
    assert frame_fingerprint(frame.assign(y=pd.array([1, 0], dtype="Int8")), ["x", "y"]) != same
    # a separator inside a value cannot imitate a border between values
    assert frame_fingerprint(pd.DataFrame({"x": ['a","b']}), ["x"]) != frame_fingerprint(
        pd.DataFrame({"x": ["a", "b"]}), ["x"]
    )


def test_folder_hash_covers_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = folder_sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = folder_sha256(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, renamed, folder_sha256(tmp_path)}) == 3
