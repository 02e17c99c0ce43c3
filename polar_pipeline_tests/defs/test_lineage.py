"""What is current is what would come out the same; for each other output the reason is named.

The outputs here are made up, each with the provenance that a step would have given it; nothing is trained.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from polar_pipeline.backbones.artifacts import AdapterRef, save_adapter
from polar_pipeline.defs import nodes as nodes_module
from polar_pipeline.defs.assets.evidence import current_languages
from polar_pipeline.defs.build import build_defs
from polar_pipeline.defs.io_managers import RELEASE
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.home import Home
from polar_pipeline.storage.outputs import Check
from polar_pipeline.storage.record import Record
from polar_pipeline.task.card import load_card
from polar_pipeline_tests.defs.mini import TINY, mini_release

CODES = ["eng", "deu", "hin"]
LINEAR: dict[str, Any] = {"name": "linear", "kind": "linear"}
GIVEN: dict[str, Any] = {"name": "mini", "languages": CODES, "folds": {"count": 2}, "backbones": [LINEAR, TINY]}
LAST = ["thresholds", "ensemble_predictions"]
LINEAR_OUTPUTS, TINY_OUTPUTS = (
    [f"{name}_adapter", f"{name}_dev_probabilities"] for name in ("linear", "tiny")
)  # fmt: skip
EARLY = ["raw_posts", "corpus_audit", "synthetic_posts", "deduped_posts"]
ALL = [*EARLY, *LINEAR_OUTPUTS, *TINY_OUTPUTS, *LAST]
ACROSS = ["benchmark_report", "submission"]


class Store:
    """A home under `root`, beside its release."""

    def __init__(self, root: Path, **changes: Any) -> None:
        self.root, self.changes = root, changes
        profile = Profile.model_validate(GIVEN | changes)
        self.project = Project(profile, load_card("polar"), Home(root / "home"), "mini.yaml")

    def with_settings(self, **changes: Any) -> "Store":
        """The same home under another profile of the same name."""
        return Store(self.root, **self.changes | changes)

    @property
    def lineage(self) -> Lineage:
        return Lineage(self.project)

    def make(self, *assets: str, codes: list[str] | None = None, text: str = "") -> None:
        """Store what steps would have stored, all assets unless some are named; `text` changes the values."""
        for node in self.lineage.nodes.values():
            if not assets or node.name in assets:
                for code in (codes or self.project.codes) if node.partitioned else [None]:
                    self.write(node.name, code, text)

    def write(self, asset: str, code: str | None, text: str = "", **more: Any) -> None:
        lineage, home = self.lineage, self.project.home
        node, files = lineage.nodes[asset], []
        value: Any = f"{asset} {text}"
        if node.kind is pd.DataFrame:
            value = pd.DataFrame({"text": [f"{asset} {code} {text}"] * 3})
        elif node.kind is AdapterRef:
            tensors = {"weights": np.frombuffer(f"{asset} {text}".encode().ljust(64), dtype=np.uint8)}
            made_of = {"config_fingerprint": "c", "posts_fingerprint": "p"}
            made_of |= {"backbone": asset.partition("_")[0], "language": code or "all"}
            value = save_adapter(home.adapters, tensors, {}, made_of)
            files = [file for file in (home.adapters / value.path).rglob("*") if file.is_file()]
        elif issubclass(node.kind, Record):
            value = node.kind.model_construct(language=f"{code} {text}")
        if asset == "ensemble_predictions":
            files = [write_atomic(self.project.results.predictions(str(code)), text.encode())]
        made = {
            "settings": node.settings(code),
            "sources": node.sources(code),
            "inputs": lineage.inputs(asset, code),
        }
        lineage.outputs.write(asset, code, value, **made, files=files, **more)

    def stale(self, code: str = "deu") -> list[str]:
        return list(self.lineage.stale(code))

    def why(self, asset: str, code: str | None = "deu") -> list[str]:
        return self.lineage.why_not_current(asset, code)

    def path(self, asset: str, code: str | None = "deu") -> Path:
        return self.lineage.outputs.path(asset, code, self.lineage.nodes[asset].kind)

    def adapter(self, name: str = "linear") -> Path:
        """The only file of weights."""
        (file,) = (self.project.home.adapters / name / "deu").rglob("adapter.safetensors")
        return file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    mini_release(root / "release", CODES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLAR_DATA_DIR", str(root / "release"))
        Store(root).make()
    return root


@pytest.fixture
def store(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A home in which everything is current."""
    shutil.copytree(made, tmp_path / "site")
    monkeypatch.setenv("POLAR_DATA_DIR", str(tmp_path / "site" / "release"))
    return Store(tmp_path / "site")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_everything_is_current_after_it_was_made(store: Store) -> None:
    assert [store.stale(code) for code in CODES] == [[], [], []]
    assert [store.why(name, None) for name in ACROSS] == [[], []]
    assert current_languages(store.project) == (sorted(CODES), {})
    assert all(store.lineage.unchanged(name, "deu") for name in ALL)
    store.lineage.require_current("thresholds", "deu")


def test_nothing_is_current_in_a_new_home(store: Store) -> None:
    shutil.rmtree(store.project.home.root)
    assert store.stale() == ALL and store.why("thresholds") == ["not made yet"]
    assert store.lineage.root_reasons("thresholds", "deu") == ["raw_posts: not made yet"]
    with pytest.raises(
        InputError, match=r"no language can be shown \(deu: raw_posts: not made yet; eng: .*`polar run --all --profile "
    ):
        current_languages(store.project)


@pytest.mark.parametrize("how", ["changed", "new", "gone"])
def test_a_file_of_the_release(store: Store, how: str) -> None:
    path = store.root / "release" / "dev" / "deu.csv"
    if how == "changed":
        path.write_bytes(path.read_bytes() + b"\n")
    elif how == "gone":
        path.unlink()
    else:
        store.write("raw_posts", "deu")
        path.unlink()
        store.make(codes=["deu"])
        assert store.stale() == []
        path.write_bytes(b"id\n")
    reason = f"file dev/deu.csv {'has changed' if how == 'changed' else f'is {how}'}"
    assert store.why("raw_posts") == [reason]
    assert store.why("corpus_audit") == ["raw_posts[deu] is not current"]
    assert store.stale() == ALL and store.stale("eng") == []
    assert store.lineage.root_reasons("ensemble_predictions", "deu") == [f"raw_posts: {reason}"]
    assert current_languages(store.project) == (["eng", "hin"], {"deu": f"raw_posts: {reason}"})
    with pytest.raises(InputError, match=rf"thresholds of deu is not current \(raw_posts: {reason}\): run `polar run "):
        store.lineage.require_current("thresholds", "deu")
    assert store.why("submission", None) == ["output ensemble_predictions[deu] is gone"]


def test_without_a_release_what_is_stored_can_be_used(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """`polar predict` needs no posts of the release."""
    monkeypatch.setenv("POLAR_DATA_DIR", str(store.root / "nowhere"))
    assert store.stale() == []


def tiny(**changes: Any) -> dict[str, Any]:
    return {"backbones": [LINEAR, TINY | changes]}


ENCODER = {"name": "encoder", "kind": "encoder", "model": "tiny:xlm_roberta"}
ENCODER_OUTPUTS = ["encoder_adapter", "encoder_dev_probabilities"]


@pytest.mark.parametrize("changes", [{"layers": [2]}, {"prompt": "query: "}, {"head": "logistic"}, {"widths": [1.0]}])
def test_settings_of_an_encoder_reach_its_scores_and_no_machine_does(store: Store, changes: dict[str, Any]) -> None:
    before = store.with_settings(backbones=[LINEAR, ENCODER])
    before.make()
    assert before.with_settings(backbones=[LINEAR, ENCODER | changes]).stale() == [*ENCODER_OUTPUTS, *LAST]
    assert before.with_settings(backbones=[LINEAR, ENCODER | {"device": "cpu", "threads": 2}]).stale() == []


def test_an_encoder_of_the_hub_is_known_by_the_commit_that_the_home_uses(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes_module, "downloaded_commit", lambda *_: "a")
    hub = store.with_settings(backbones=[LINEAR, ENCODER | {"model": "polar/open"}])
    hub.make()
    assert hub.stale() == []
    monkeypatch.setattr(nodes_module, "downloaded_commit", lambda *_: "b")
    assert hub.stale() == [*ENCODER_OUTPUTS, *LAST]


CARD_FREE = {"source": "offline", "posts": 10}
SETTINGS: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "seed": ({"seed": 1}, ALL, "setting seed is 1, was 20260223"),
    "folds": ({"folds": {"count": 3}}, ALL, "setting folds.count is 3, was 2"),
    "synthesis": (
        {"synthesis": CARD_FREE},
        [name for name in ALL if name not in ("raw_posts", "corpus_audit")],
        "setting synthesis.source is offline, was none",
    ),
    "curation": (
        {"curation": {"share": 0.1}},
        [name for name in ALL if name not in EARLY[:3]],
        "setting curation.share is 0.1, was 0.3",
    ),
    "linear": (
        {"backbones": [LINEAR | {"regularisation": 2.0}, TINY]},
        [*LINEAR_OUTPUTS, *LAST],
        "setting backbone.regularisation is 2.0, was 0.5",
    ),
    "tiny": (tiny(rank=4), [*TINY_OUTPUTS, *LAST], "setting backbone.rank is 4, was 2"),
    "left out": (
        tiny(languages=["eng"]),
        [*TINY_OUTPUTS, *LAST],
        "setting backbone.languages is without this one, was with this one",
    ),
    "decision": ({"decision": {"resamples": 7}}, LAST, "setting decision.resamples is 7, was 200"),
    "strategy": ({"decision": {"strategy": "equal"}}, LAST, "setting decision.strategy is equal, was simplex"),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_a_changed_setting_is_named_with_both_values_and_reaches_its_stage_and_what_follows(
    store: Store, what: str
) -> None:
    changes, stale, reason = SETTINGS[what]
    other = store.with_settings(**changes)
    assert other.stale() == stale
    assert reason in other.why(stale[0]), other.why(stale[0])
    assert other.lineage.unchanged(stale[0], "deu") is None
    other.make()
    assert other.stale() == [] and other.why("benchmark_report", None) == []
    assert store.stale() == stale


ENDPOINT: dict[str, Any] = {"source": "endpoint", "posts": 10, "base_url": "http://one:1/v1"}
HARMLESS: dict[str, dict[str, Any]] = {
    "report": {"report": {"resamples": 100}},
    "cap": {"synthesis": ENDPOINT | {"max_dollars": 1.0, "max_requests": 9}},
    "prices": {"synthesis": ENDPOINT | {"price_prompt": 1.0, "price_completion": 2.0}},
    "a slash after the address": {"synthesis": ENDPOINT | {"base_url": "http://one:1/v1/"}},
    "concurrency and attempts": {"synthesis": ENDPOINT | {"concurrency": 3, "attempts": 2}},
    "description": {"description": "another"},
    "device and threads": tiny(device="auto", threads=2, recompute="auto", checkpoint_seconds=5.0),
    "languages that name all": tiny(languages=CODES),
    "one more language": {"languages": [*CODES, "swa"]},
    "one language less": {"languages": ["deu", "hin"]},
    "another order": {"languages": ["hin", "deu", "eng"]},
    "plan of another language": {"curation": {"per_language": {"eng": {"share": 0.1}}}},
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_changes_no_result_leaves_decisions_current(store: Store, what: str) -> None:
    if "synthesis" in HARMLESS[what]:
        store = store.with_settings(synthesis=ENDPOINT)
        store.make()
    other = store.with_settings(**HARMLESS[what])
    assert other.stale() == [] and other.stale("hin") == []


def test_a_plan_of_one_language_reaches_that_language_alone(store: Store) -> None:
    synthesis = {"source": "offline", "posts": 10}
    with_posts = store.with_settings(synthesis=synthesis)
    with_posts.make()
    planned = store.with_settings(synthesis=synthesis | {"per_language": {"eng": {"posts": 20}}})
    assert planned.stale("deu") == [] == planned.stale("hin")
    assert planned.stale("eng") == [name for name in ALL if name not in ("raw_posts", "corpus_audit")]
    assert planned.why("synthetic_posts", "eng") == ["setting synthesis.posts is 20, was 10"]


def test_another_address_of_an_embedder_makes_the_curated_posts_stale(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    named = store.with_settings(curation={"embedder": "api:small"})
    named.make()
    assert named.stale() == [] and named.why("deduped_posts") == []
    monkeypatch.setenv("OPENAI_BASE_URL", "http://other:1/v1/")
    assert named.why("deduped_posts") == [
        "setting endpoint.base_url is http://other:1/v1, was https://api.openai.com/v1"
    ]
    assert named.stale()[0] == "deduped_posts" and store.why("deduped_posts") == [
        "setting curation.embedder is ngrams, was api:small",
        "setting endpoint.base_url is not set, was https://api.openai.com/v1",
        "setting endpoint.model is not set, was gpt-4o-mini",
    ]
    same = {"curation": {"embedder": "api:small"}, "synthesis": {"base_url": "https://api.openai.com/v1/"}}
    assert store.with_settings(**same).why("deduped_posts") == []  # the profile's comes before the environment's


def test_a_language_identifier_of_ones_own_counts_by_its_contents(store: Store) -> None:
    model = store.root / "identifier.ftz"
    model.write_bytes(b"one")
    named = store.with_settings(curation={"language_model": str(model)})
    assert named.why("deduped_posts") == ["file language_model is new"]
    named.make()
    moved = model.rename(store.root / "other.ftz")
    assert store.with_settings(curation={"language_model": str(moved)}).why("deduped_posts") == []
    moved.write_bytes(b"another")
    changed = store.with_settings(curation={"language_model": str(moved)})
    assert changed.why("deduped_posts") == ["file language_model has changed"]


def test_a_file_of_synthetic_posts(store: Store) -> None:
    folder = store.root / "synthetic"
    folder.mkdir()
    for code in ("deu", "eng"):
        (folder / f"{code}.csv").write_text("text,polarization\na,1\n")
    read = store.with_settings(synthesis={"source": "file", "path": str(folder)})
    reasons = read.why("synthetic_posts")
    assert reasons[0] == "setting synthesis.source is file, was none" and reasons[-1] == "file deu.csv is new"
    read.make()
    assert read.stale() == [] == read.stale("hin")
    moved = folder.rename(store.root / "moved")
    assert read.why("synthetic_posts") == ["file deu.csv is gone"]
    read = read.with_settings(synthesis={"source": "file", "path": str(moved)})
    assert read.stale() == []
    (moved / "deu.csv").write_text("text,polarization\nb,1\n")
    assert read.why("synthetic_posts") == ["file deu.csv has changed"] and read.stale("eng") == []
    assert read.stale() == [name for name in ALL if name not in ("raw_posts", "corpus_audit")]


def test_upstream_that_was_made_anew(store: Store) -> None:
    store.write("deduped_posts", "deu")
    assert store.stale() == []  # the same bytes
    store.write("deduped_posts", "deu", "other")
    assert store.why("linear_adapter") == ["it was made from another deduped_posts[deu]"]
    assert store.stale() == [*LINEAR_OUTPUTS, *TINY_OUTPUTS, *LAST]
    assert store.lineage.root_reasons("thresholds", "deu") == [
        f"{name}_adapter: it was made from another deduped_posts[deu]" for name in ("linear", "tiny")
    ]
    store.make(*LINEAR_OUTPUTS, *TINY_OUTPUTS)  # which come out the same
    assert store.stale() == [] and current_languages(store.project)[1] == {}
    store.write("linear_dev_probabilities", "deu", "other")
    assert store.why("thresholds") == ["it was made from another linear_dev_probabilities[deu]"]
    assert store.why("tiny_adapter") == [] == store.why("linear_adapter")


DAMAGES: dict[str, tuple[str, Callable[[Store], Any], str]] = {
    "flipped table": ("raw_posts", lambda s: flip(s.path("raw_posts")), "raw_posts/deu.parquet was changed after"),
    "deleted table": ("deduped_posts", lambda s: s.path("deduped_posts").unlink(), "deu.parquet is missing"),
    "emptied scores": (
        "tiny_dev_probabilities",
        lambda s: s.path("tiny_dev_probabilities").write_bytes(b""),
        "deu.parquet was changed after it was written",
    ),
    "flipped decision": ("thresholds", lambda s: flip(s.path("thresholds")), "deu.json was changed after"),
    "flipped adapter": ("linear_adapter", lambda s: flip(s.adapter()), "adapter.safetensors was changed after"),
    "deleted adapter file": ("linear_adapter", lambda s: s.adapter().unlink(), "adapter.safetensors is missing"),
    "deleted adapter": ("tiny_adapter", lambda s: shutil.rmtree(s.adapter("tiny").parent), "is missing"),
    "a file too many": (
        "linear_adapter",
        lambda s: s.adapter().with_name("more.json").write_text("{}"),
        "more.json does not belong to the adapter",
    ),
    "flipped reference": ("tiny_adapter", lambda s: flip(s.path("tiny_adapter")), "deu.json was changed after"),
    "deleted CSV": (
        "ensemble_predictions",
        lambda s: s.project.results.predictions("deu").unlink(),
        "profiles/mini/predictions/deu.csv is missing",
    ),
    "edited CSV": (
        "ensemble_predictions",
        lambda s: s.project.results.predictions("deu").write_text("id,polarization\n"),
        "profiles/mini/predictions/deu.csv was changed after it was written",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_named_and_what_follows_waits_for_it(store: Store, what: str) -> None:
    asset, damage, reason = DAMAGES[what]
    damage(store)
    (found,) = store.why(asset)
    assert reason in found
    assert store.lineage.unchanged(asset, "deu") is None
    assert store.stale()[0] == asset and store.stale("eng") == []
    assert list(current_languages(store.project)[1]) == ["deu"]
    store.write(asset, "deu")
    assert store.stale() == []


def test_a_refused_output_is_not_current_and_a_warning_is(store: Store) -> None:
    store.write("raw_posts", "deu", checks=[Check(name="no_canary", complaint="2 canaries", warning=True)])
    assert store.stale() == []
    store.write("raw_posts", "deu", checks=[Check(name="no_canary", complaint="2 canaries")])
    assert store.why("raw_posts") == ["it fails the check no_canary: 2 canaries"]
    assert store.stale() == ALL and store.lineage.unchanged("raw_posts", "deu") is None
    assert current_languages(store.project)[1] == {"deu": "raw_posts: it fails the check no_canary: 2 canaries"}


def test_incomplete_synthesis_is_not_current_and_used_all_the_same(store: Store) -> None:
    store.write("synthetic_posts", "deu", incomplete="the cap of 1 dollar")
    assert store.stale() == ALL[ALL.index("synthetic_posts") :]
    assert list(store.lineage.shared_reasons({"deu": store.stale()})) == [
        ("synthetic_posts: incomplete: the cap of 1 dollar",)
    ]
    assert current_languages(store.project) == (sorted(CODES), {})
    store.lineage.require_current("thresholds", "deu")
    assert store.why("synthetic_posts") == ["incomplete: the cap of 1 dollar"]
    assert store.lineage.unchanged("synthetic_posts", "deu") is None and store.stale()[0] == "synthetic_posts"


def test_the_report_and_the_submission_follow_the_languages(store: Store) -> None:
    store.write("ensemble_predictions", "deu", "other")
    assert store.why("submission", None) == ["output ensemble_predictions[deu] has changed"]
    store.make(*ACROSS)
    assert store.why("submission", None) == []
    flip(store.path("thresholds"))  # the language is left out by the next report
    assert store.why("submission", None) == ["output ensemble_predictions[deu] is gone"]
    store.make(*ACROSS)
    assert [store.why(name, None) for name in ACROSS] == [[], []]
    store.write("thresholds", "deu")
    assert store.why("submission", None) == ["output ensemble_predictions[deu] is new"]


def test_a_base_model_in_a_folder_is_a_source(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    own = store.with_settings(**tiny(model=str(folder)))
    own.make()
    assert own.stale() == []
    (folder / "model.safetensors").write_bytes(b"weighty")
    assert own.why("tiny_adapter") == [f"file {folder} has changed"]
    assert own.stale() == [*TINY_OUTPUTS, *LAST]


def test_imported_scores_are_a_source_wherever_they_lie(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    path.write_bytes(b"scores")
    entry = {"name": "elsewhere", "kind": "imported", "path": str(path)}
    imported = store.with_settings(backbones=[LINEAR, entry])
    imported.make()
    assert imported.stale() == []
    (tmp_path / "moved").mkdir()
    path.rename(tmp_path / "moved" / "scores.parquet")
    moved = store.with_settings(backbones=[LINEAR, entry | {"path": str(tmp_path / "moved" / "scores.parquet")}])
    assert moved.stale() == []
    (tmp_path / "moved" / "scores.parquet").write_bytes(b"others")
    assert (
        moved.why("elsewhere_adapter") == ["file scores.parquet has changed"]
        and moved.stale()[0] == "elsewhere_adapter"
    )


@pytest.mark.parametrize("scope", ["pooled", "family"])
def test_a_pooled_adapter_is_made_of_all_languages(store: Store, scope: str) -> None:
    pooled = store.with_settings(**tiny(scope=scope))
    assert pooled.stale() == [*TINY_OUTPUTS, *LAST]
    pooled.make()
    assert pooled.stale() == [] and pooled.why("tiny_pooled_adapter", None) == []
    pooled.write("deduped_posts", "eng", "other")
    assert pooled.why("tiny_pooled_adapter", None) == ["output deduped_posts[eng] has changed"]
    assert pooled.stale() == [*TINY_OUTPUTS, *LAST] and pooled.why("tiny_adapter") == [
        "tiny_pooled_adapter is not current"
    ]
    more = pooled.with_settings(languages=[*CODES, "swa"])
    pooled.make()
    assert pooled.stale() == [] and more.why("tiny_pooled_adapter", None) == []  # nothing of swa is there yet


PROFILES: dict[str, dict[str, Any]] = {
    "two backbones": {},
    "pooled": tiny(scope="pooled"),
    "families": tiny(scope="family"),
    "imported": {"backbones": [LINEAR, {"name": "elsewhere", "kind": "imported", "path": "x.csv"}]},
    "synthesis with a gate": {"synthesis": {"source": "endpoint"}, "curation": {"judge": True, "gate": True}},
    "plans": {"synthesis": {"source": "offline", "per_language": {"deu": {"posts": 5}}}},
    "synthetic posts of a file": {"synthesis": {"source": "file", "path": "x.csv"}},
    "without folds": {"folds": {"count": 0}, "backbones": [TINY]},
}


@pytest.mark.parametrize("what", [*PROFILES, "demo", "cpu", "gpu", "laptop"])
def test_the_lineage_is_that_of_dagsters_graph(tmp_path: Path, what: str) -> None:
    bundled = Project.load(what, {"POLAR_HOME": str(tmp_path)}) if what not in PROFILES else None
    project = bundled or Store(tmp_path, **PROFILES[what]).project
    graph, lineage = build_defs(project).resolve_asset_graph(), Lineage(project)
    prefix = project.profile.name
    assert {key.path[0] for key in graph.get_all_asset_keys()} == {prefix}
    assert {key.path[1] for key in graph.materializable_asset_keys} == set(lineage.nodes)
    done: set[str] = set()
    for name, node in lineage.nodes.items():
        found = graph.get(dg.AssetKey([prefix, name]))
        parents = {key.path[1] for key in found.parent_keys}
        assert parents == set(node.inputs) | ({RELEASE} if name == "raw_posts" else set()), name
        assert (found.is_partitioned, found.code_version) == (node.partitioned, lineage.code_version(name)), name
        assert set(node.inputs) <= done, f"{name} comes before what it is made from"
        done.add(name)


def test_code_versions_tell_stages_apart(tmp_path: Path) -> None:
    first, other = Store(tmp_path), Store(tmp_path, **tiny(rank=4))
    changed = [name for name in ALL if first.lineage.code_version(name) != other.lineage.code_version(name)]
    assert changed == TINY_OUTPUTS
    planned = Store(tmp_path, **PROFILES["plans"])
    assert planned.lineage.code_version("synthetic_posts") != first.lineage.code_version("synthetic_posts")
    more = Store(tmp_path, languages=[*CODES, "swa"])
    assert all(first.lineage.code_version(name) == more.lineage.code_version(name) for name in ALL)
