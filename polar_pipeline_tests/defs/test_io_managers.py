"""Tables and records survive the disk; an unpartitioned reader gets a dict for one, two and many languages."""

from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from upath import UPath

from polar_pipeline.defs.io_managers import ParquetIOManager, RecordIOManager, TextIOManager
from polar_pipeline.storage.record import Record

CODES = ["swa", "deu", "eng", "hin"]
LANGUAGES = dg.StaticPartitionsDefinition(CODES)


class Size(Record):
    language: str
    posts: int


@dg.asset(partitions_def=LANGUAGES, io_manager_key="tables")
def table(context: dg.AssetExecutionContext) -> pd.DataFrame:
    label = pd.array([1, None], dtype="Int8")
    return pd.DataFrame({"id": [context.partition_key, "\u0000 \r\n"], "label": label})


@dg.asset(partitions_def=LANGUAGES, io_manager_key="sizes")
def size(context: dg.AssetExecutionContext, table: pd.DataFrame) -> Size:
    assert table["label"].dtype == "Int8"
    assert table["id"].tolist() == [context.partition_key, "\u0000 \r\n"]
    return Size(language=context.partition_key, posts=len(table))


@dg.asset(io_manager_key="texts")
def across(table: dict[str, pd.DataFrame], size: dict[str, Size]) -> str:
    assert {code: item.language for code, item in size.items()} == {
        code: frame["id"][0] for code, frame in table.items()
    }
    return ",".join(table)


def resources(home: Path) -> dict[str, Any]:
    base = UPath(home)
    return {"tables": ParquetIOManager(base), "sizes": RecordIOManager(base, Size), "texts": TextIOManager(base)}


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_whatever_is_there_arrives_as_a_dict(tmp_path: Path, count: int) -> None:
    with dg.instance_for_test() as instance:
        for code in CODES[:count]:
            dg.materialize([table, size], partition_key=code, resources=resources(tmp_path), instance=instance)
        result = dg.materialize(
            [table, size, across], selection=[across], resources=resources(tmp_path), instance=instance
        )
    assert result.output_for_node("across") == ",".join(sorted(CODES[:count]))
    assert (tmp_path / "across.txt").read_text() == ",".join(sorted(CODES[:count])) + "\n"


def test_a_record_that_is_not_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "size").mkdir()
    (tmp_path / "size" / "deu.json").write_text('{"language": "deu", "posts": "many"}')
    with pytest.raises(ValueError, match="posts"), dg.instance_for_test() as instance:
        dg.materialize([table, size, across], selection=[across], resources=resources(tmp_path), instance=instance)


@dg.asset(partitions_def=LANGUAGES, backfill_policy=dg.BackfillPolicy.single_run())
def counts(context: dg.AssetExecutionContext, table: Any) -> None:
    """Of one run over several languages: a dict of those that are there; the bare table where it has one."""
    tables = table if isinstance(table, dict) else {context.partition_key: table}
    context.add_output_metadata({"rows": {key: len(frame) for key, frame in tables.items()}})


@pytest.mark.parametrize(("first", "last"), [("deu", "deu"), ("deu", "eng"), ("swa", "hin")])
def test_a_range_of_languages_in_one_run(tmp_path: Path, first: str, last: str) -> None:
    """`eng` is not there, which is no reason to keep the others from it."""
    tables = ParquetIOManager(UPath(tmp_path))
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    with dg.DagsterInstance.ephemeral() as instance:
        for code in CODES:
            if code != "eng":
                assert dg.materialize([table], partition_key=code, resources={"tables": tables}, instance=instance)
        result = dg.materialize(
            [table, counts], selection=[counts], tags=tags, resources={"tables": tables}, instance=instance
        )
    wanted = [code for code in CODES[CODES.index(first) : CODES.index(last) + 1] if code != "eng"]
    event = result.asset_materializations_for_node("counts")[0]
    assert event.metadata["rows"].value == dict.fromkeys(wanted, 2)


def test_what_is_stored_one_by_one_is_read_as_any_other(tmp_path: Path) -> None:
    both = resources(tmp_path)
    for code in CODES[:2]:
        both["sizes"].store("size", code, Size(language=code, posts=2))
        both["tables"].store("table", code, pd.DataFrame({"id": [code], "label": [1]}))
    with dg.instance_for_test() as instance:
        result = dg.materialize([table, size, across], selection=[across], resources=both, instance=instance)
    assert result.output_for_node("across") == "deu,swa"
