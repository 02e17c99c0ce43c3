"""Tables and records survive the disk; an unpartitioned reader gets a dict for one, two and many languages."""

from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from polar_pipeline.defs.tracked_asset import StepContext, tracked_asset
from polar_pipeline.storage.outputs import Provenance
from polar_pipeline.storage.record import Record
from polar_pipeline.tracking.base import TrackedRun, Tracker
from polar_pipeline_tests.defs.toy import CODES, ToyOutputs, key, lineage_of


class Size(Record):
    language: str
    posts: int


@tracked_asset(lineage_of("table"))
def table(context: StepContext, run: TrackedRun) -> pd.DataFrame:
    label = pd.array([1, None], dtype="Int8")
    return pd.DataFrame({"id": [context.partition_key, "\u0000 \r\n"], "label": label})


@tracked_asset(lineage_of("size"))
def size(context: StepContext, table: pd.DataFrame, run: TrackedRun) -> Size:
    assert table["label"].dtype == "Int8"
    assert table["id"].tolist() == [context.partition_key, "\u0000 \r\n"]
    return Size(language=context.partition_key, posts=len(table))


@tracked_asset(lineage_of("across", partitioned=False))
def across(context: StepContext, table: dict[str, pd.DataFrame], size: dict[str, Size], run: TrackedRun) -> str:
    assert {code: item.language for code, item in size.items()} == {
        code: frame["id"][0] for code, frame in table.items()
    }
    return ",".join(table)


@tracked_asset(lineage_of("after", partitioned=False))
def after(context: StepContext, across: str, run: TrackedRun) -> str:
    return across.upper()


@tracked_asset(lineage_of("share"))
def share(context: StepContext, across: str, run: TrackedRun) -> str:
    """As the share of a pooled adapter: of one language, made from what has none."""
    return f"{context.partition_key} of {across}"


ASSETS = [table, size, across, after, share]
INPUTS = {"table": (), "size": ("table",), "across": ("table", "size"), "after": ("across",), "share": ("across",)}


class Kinds(ToyOutputs):
    @property
    def lineage(self) -> Any:
        lineage = super().lineage
        kinds = {"table": pd.DataFrame, "size": Size}
        lineage.nodes = {
            name: type(node)(name, kinds.get(name, str), node.inputs, node.settings, partitioned=node.partitioned)
            for name, node in lineage.nodes.items()
        }
        return lineage


class Home:
    def __init__(self, home: Path) -> None:
        self.outputs = Kinds(home, INPUTS, across=("across", "after"))
        self.instance = dg.DagsterInstance.ephemeral()

    def run(self, *selection: dg.AssetsDefinition, code: str | None = None, **more: Any) -> dg.ExecuteInProcessResult:
        resources = {"tracker": Tracker(), "outputs": self.outputs, "watcher": lambda progress: None}
        return dg.materialize(
            ASSETS, selection=selection, partition_key=code, resources=resources, instance=self.instance,
            raise_on_error=False, **more,
        )  # fmt: skip

    def read(self, asset: str, language: str | None = None) -> Any:
        return self.outputs.lineage.read(asset, language)

    def provenance(self, asset: str, language: str | None = None) -> Provenance:
        found = self.outputs.lineage.outputs.provenance(asset, language)
        assert found is not None
        return found


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def cause(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    return str(error.cause.message if error and error.cause else error)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_whatever_is_there_arrives_as_a_dict(home: Home, count: int) -> None:
    for code in CODES[:count]:
        assert home.run(table, size, code=code).success
    assert home.run(across, after).success
    assert home.read("across") == ",".join(CODES[:count]) and home.read("after") == ",".join(CODES[:count]).upper()
    tables = {f"table[{code}]": home.provenance("table", code).sha256 for code in CODES[:count]}
    sizes = {f"size[{code}]": home.provenance("size", code).sha256 for code in CODES[:count]}
    assert home.provenance("across").inputs == tables | sizes
    assert home.provenance("after").inputs == {"across": home.provenance("across").sha256}


def test_a_language_reads_what_has_no_languages(home: Home) -> None:
    assert home.run(across).success and home.run(share, code="eng").success
    assert home.read("share", "eng") == "eng of "
    assert home.provenance("share", "eng").inputs == {"across": home.provenance("across").sha256}


def test_what_is_not_there_is_named(home: Home) -> None:
    assert "materialize table[deu] first" in cause(home.run(size, code="deu"))
    assert "materialize across first" in cause(home.run(after))


@pytest.mark.parametrize("reader", [size, across])
def test_what_is_damaged_is_refused(home: Home, reader: dg.AssetsDefinition) -> None:
    assert home.run(table, size, code="deu").success
    path = home.outputs.lineage.outputs.path("table", "deu", pd.DataFrame)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    result = home.run(reader, code="deu" if reader is size else None)
    assert not result.success and "deu.parquet was changed after it was written" in cause(result)


def test_a_record_that_is_not_one_is_refused(home: Home) -> None:
    outputs, made = home.outputs.lineage.outputs, {"settings": {}, "sources": {}, "inputs": {}}
    path = outputs.path("size", "deu", Size)
    outputs.write("size", "deu", '{"language": "deu", "posts": "many"}', **made)
    path.with_suffix(".txt").rename(path)
    assert "deu.json is no Size of this version (wrong or missing: posts)" in cause(home.run(across))


@tracked_asset(lineage_of("counts"), backfill_policy=dg.BackfillPolicy.single_run())
def counts(context: StepContext, table: pd.DataFrame, run: TrackedRun) -> str:
    context.add_output_metadata({"rows": len(table)})
    return f"{context.partition_key} {table['id'][0]}"


@pytest.mark.parametrize(("first", "last"), [("deu", "deu"), ("deu", "eng"), ("deu", "hin")])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_range_of_languages_in_one_run(tmp_path: Path, first: str, last: str, damaged: bool) -> None:
    """`eng` is not there or damaged, which is no reason to keep the others from it."""
    outputs = Kinds(tmp_path, {"table": (), "counts": ("table",)})
    for code in CODES:
        outputs.store("table", code, pd.DataFrame({"id": [code]}))
    path = outputs.lineage.outputs.path("table", "eng", pd.DataFrame)
    path.write_bytes(path.read_bytes()[:-1]) if damaged else path.unlink()
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    resources = {"tracker": Tracker(), "outputs": outputs, "watcher": lambda progress: None}
    result = dg.materialize([table, counts], selection=[counts], tags=tags, resources=resources, raise_on_error=False)
    asked = CODES[: CODES.index(last) + 1]
    wanted = [code for code in asked if code != "eng"]
    assert [event.partition for event in result.asset_materializations_for_node("demo__counts")] == wanted
    assert {code: outputs.lineage.read("counts", code) for code in wanted} == {
        code: f"{code} {code}" for code in wanted
    }
    assert result.success == (wanted == asked)
    if not result.success:
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        reason = "eng.parquet was changed after" if damaged else "materialize table[eng] first"
        described = str(failure.step_failure_data.user_failure_data.description)
        assert described.startswith(f"1 of {len(asked)} languages failed (eng: ") and reason in described


def test_the_inputs_of_an_output_are_the_bytes_that_were_read(home: Home) -> None:
    """Another process replaces the table while the step is at work: the output is then not current."""
    assert home.run(table, code="deu").success
    before = home.provenance("table", "deu").sha256

    @tracked_asset(lineage_of("size"), name="size")
    def slow(context: StepContext, table: pd.DataFrame, run: TrackedRun) -> Size:
        home.outputs.store("table", "deu", table[:1])
        return Size(language="deu", posts=len(table))

    resources = {"tracker": Tracker(), "outputs": home.outputs, "watcher": lambda progress: None}
    assert dg.materialize([table, slow], selection=[slow], partition_key="deu", resources=resources).success
    assert home.provenance("size", "deu").inputs == {"table[deu]": before}
    assert home.outputs.lineage.why_not_current("size", "deu") == ["it was made from another table[deu]"]


def test_a_key_names_the_profile() -> None:
    assert table.key == key("table") == dg.AssetKey(["demo", "table"])
