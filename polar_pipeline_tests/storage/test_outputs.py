"""Stored outputs come back as they were written, or are refused: no damaged, foreign or half-written file is read."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.errors import InputError
from polar_pipeline.storage import outputs as module
from polar_pipeline.storage.fingerprint import file_sha256
from polar_pipeline.storage.outputs import Check, Outputs, Provenance, code_version, output_name
from polar_pipeline.storage.record import Record


class Size(Record):
    language: str
    posts: int


FRAME = pd.DataFrame(
    {
        "id": ["a", "\u0000 \r\n", ""],
        "label": pd.array([1, None, 0], dtype="Int8"),
        "logit": [0.1, -1 / 3, 1e-300],
        "keep": [True, False, True],
    }
)
VALUES = [FRAME, Size(language="dëu", posts=3), "profiles/cpu/submission.zip", "", "two\nlines\n\n"]
SETTINGS = {"version": 1, "folds": {"count": 5}}


@pytest.fixture
def store(tmp_path: Path) -> Outputs:
    return Outputs(tmp_path, tmp_path / "tables")


def write(store: Outputs, value: Any = FRAME, language: str | None = "deu", **more: Any) -> Provenance:
    made: dict[str, Any] = {"settings": SETTINGS, "sources": {"train/deu.csv": "1" * 64}, "inputs": {"up[deu]": "2"}}
    return store.write("thing", language, value, **made | more)


@pytest.mark.parametrize("value", VALUES, ids=["table", "record", "path", "empty", "lines"])
@pytest.mark.parametrize("language", ["deu", None])
def test_a_value_comes_back_with_what_it_was_made_from(store: Outputs, value: Any, language: str | None) -> None:
    made = write(store, value, language, checks=[Check(name="sound", complaint="no")], incomplete="cap")
    found, sha256 = store.read_hashed("thing", language, type(value))
    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(found, value)
    else:
        assert found == value
    assert store.provenance("thing", language) == made
    assert sha256 == made.sha256 == file_sha256(store.path("thing", language, type(value)))
    assert (made.code_version, made.settings) == (code_version(SETTINGS), SETTINGS)
    assert (made.asset, made.language, made.inputs, made.incomplete) == ("thing", language, {"up[deu]": "2"}, "cap")
    assert made.checks[0].refused and store.damage(made, type(value)) == ""


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    store = Outputs(Path("/"), tmp_path_factory.getbasetemp() / "texts")
    write(store, text)
    assert store.read("thing", "deu", str) == text


def test_the_same_value_has_the_same_bytes(store: Outputs) -> None:
    assert write(store).sha256 == write(store, FRAME.copy(), "eng").sha256 != write(store, FRAME[:2]).sha256
    assert store.languages("thing") == ["deu", "eng"] and store.languages("other") == []
    assert (output_name("thing", "deu"), output_name("thing", None)) == ("thing[deu]", "thing")


def test_every_flipped_bit_of_a_table_is_refused(store: Outputs) -> None:
    made, path = write(store), store.path("thing", "deu", pd.DataFrame)
    content, generator = path.read_bytes(), np.random.default_rng(0)
    for place in generator.choice(len(content) * 8, 200, replace=False):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"deu\.parquet was changed after it was written .*run `polar run` again"):
            store.read("thing", "deu", pd.DataFrame)
        assert store.damage(made, pd.DataFrame) == "tables/thing/deu.parquet was changed after it was written"
    path.write_bytes(content)
    assert store.damage(made, pd.DataFrame) == ""


def test_a_flipped_bit_of_the_provenance_never_gives_another_value(store: Outputs) -> None:
    write(store)
    path = store.path("thing", "deu", pd.DataFrame).with_name("deu.provenance.json")
    content, refused = path.read_bytes(), 0
    for place in range(0, len(content) * 8, 7):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            pd.testing.assert_frame_equal(store.read("thing", "deu", pd.DataFrame), FRAME)
        except InputError:
            refused += 1
    assert refused > len(content) // 7


@pytest.mark.parametrize("value", VALUES[:3], ids=["table", "record", "path"])
@pytest.mark.parametrize("how", ["truncated", "emptied", "longer", "missing"])
def test_a_file_that_is_not_whole_is_refused(store: Outputs, value: Any, how: str) -> None:
    made, path = write(store, value), store.path("thing", "deu", type(value))
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:-1], "emptied": b"", "longer": content + b"\n", "missing": b""}[how])
    if how == "missing":
        path.unlink()
    with pytest.raises(InputError, match="materialize thing.deu. first" if how == "missing" else "was changed after"):
        store.read("thing", "deu", type(value))
    assert store.damage(made, type(value)).endswith("is missing" if how == "missing" else "after it was written")


def test_a_value_without_provenance_is_refused(store: Outputs) -> None:
    write(store)
    note = store.path("thing", "deu", pd.DataFrame).with_name("deu.provenance.json")
    for content in (b"", b"{}", note.read_bytes().replace(b'"sources"', b'"origins"'), b"\xff"):
        note.write_bytes(content)
        assert store.provenance("thing", "deu") is None
    note.unlink()
    assert store.provenance("thing", "deu") is None
    with pytest.raises(InputError, match="has no record of what it was made from: run `polar run` again"):
        store.read("thing", "deu", pd.DataFrame)


def test_a_value_and_provenance_of_another_language_or_asset_are_refused(store: Outputs) -> None:
    write(store)
    folder = store.path("thing", "deu", pd.DataFrame).parent
    for suffix in (".parquet", ".provenance.json"):
        shutil.copy(folder / f"deu{suffix}", folder / f"eng{suffix}")
    shutil.copytree(folder, folder.with_name("other"))
    for asset, language in (("thing", "eng"), ("other", "deu")):
        assert store.provenance(asset, language) is None
        with pytest.raises(InputError, match="has no record of what it was made from"):
            store.read(asset, language, pd.DataFrame)
    assert store.provenance("thing", "deu")


@pytest.mark.parametrize("written", [0, 1])
def test_a_kill_while_it_is_written_leaves_nothing_that_could_pass_for_current(
    store: Outputs, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """The process ends before the value, or between the value and its provenance."""
    write(store, FRAME[:1])
    calls, whole = [], module.write_atomic

    def killed(path: Path, content: bytes) -> Path:
        calls.append(path)
        if len(calls) > written:
            raise KeyboardInterrupt
        return whole(path, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "write_atomic", killed)
        write(store)
    assert store.provenance("thing", "deu") is None
    with pytest.raises(InputError, match="has no record"):
        store.read("thing", "deu", pd.DataFrame)
    write(store)
    assert len(store.read("thing", "deu", pd.DataFrame)) == len(FRAME)


def test_further_files_belong_to_an_output(store: Outputs, tmp_path: Path) -> None:
    files = [tmp_path / "predictions" / "deu.csv", tmp_path / "adapters" / "weights"]
    for file in files:
        file.parent.mkdir()
        file.write_text(file.name)
    made = write(store, files=files)
    assert set(made.files) == {"predictions/deu.csv", "adapters/weights"}
    files[0].write_text("changed")
    assert store.damage(made, pd.DataFrame) == "predictions/deu.csv was changed after it was written"
    files[0].write_text("deu.csv")
    assert store.damage(made, pd.DataFrame) == ""
    files[1].unlink()
    assert store.damage(made, pd.DataFrame) == "adapters/weights is missing"


def test_outputs_hold_in_a_home_that_was_moved(tmp_path: Path) -> None:
    home = tmp_path / "old"
    (home / "adapters").mkdir(parents=True)
    (home / "adapters" / "weights").write_text("1")
    made = write(Outputs(home, home / "tables"), files=[home / "adapters" / "weights"])
    home.rename(tmp_path / "new")
    moved = Outputs(tmp_path / "new", tmp_path / "new" / "tables")
    assert moved.damage(made, pd.DataFrame) == "" and len(moved.read("thing", "deu", pd.DataFrame)) == len(FRAME)
