"""What the definitions hold, as a snapshot, and what loading them costs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from polar_pipeline.defs.build import build_defs
from polar_pipeline.defs.project import Project
from polar_pipeline.settings.profile import Profile, load_profile
from polar_pipeline.settings.yaml_files import commented
from polar_pipeline.storage.home import Home
from polar_pipeline.task.card import load_card

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "mlflow",
    "faiss",
    "sklearn",
    "openai",
    "matplotlib",
    "pandera",
    "scipy",
)


def name_of(key: dg.AssetKey) -> str:
    """The last part of a key, which begins with the profile."""
    assert len(key.path) == 2
    return key.path[1]


def test_the_graph(project: Project) -> None:
    graph = build_defs(project).resolve_asset_graph()
    parents = {
        name_of(key): sorted(name_of(parent) for parent in graph.get(key).parent_keys)
        for key in graph.materializable_asset_keys
    }
    assert {key.path[0] for key in graph.get_all_asset_keys()} == {"demo"}
    assert {name_of(key) for key in graph.external_asset_keys} == {"release_files"}
    assert parents == {
        "raw_posts": ["release_files"],
        "corpus_audit": ["raw_posts"],
        "synthetic_posts": ["raw_posts"],
        "deduped_posts": ["raw_posts", "synthetic_posts"],
        "linear_adapter": ["deduped_posts"],
        "linear_dev_probabilities": ["deduped_posts", "linear_adapter"],
        "tiny_gemma_adapter": ["deduped_posts"],
        "tiny_gemma_dev_probabilities": ["deduped_posts", "tiny_gemma_adapter"],
        "thresholds": [
            "corpus_audit",
            "linear_adapter",
            "linear_dev_probabilities",
            "raw_posts",
            "tiny_gemma_adapter",
            "tiny_gemma_dev_probabilities",
        ],
        "ensemble_predictions": ["linear_dev_probabilities", "raw_posts", "thresholds", "tiny_gemma_dev_probabilities"],
        "benchmark_report": ["corpus_audit", "deduped_posts", "ensemble_predictions", "raw_posts", "thresholds"],
        "submission": ["ensemble_predictions"],
    }


def test_every_asset_is_described_grouped_owned_and_versioned(project: Project) -> None:
    graph = build_defs(project).resolve_asset_graph()
    groups = {"corpus": 2, "synthesis": 2, "backbones": 4, "decision": 2, "evidence": 2}
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        assert node.description and node.owners and node.kinds and node.code_version, key
        groups[str(node.group_name)] -= 1
        assert node.is_partitioned == (node.group_name != "evidence"), key
    assert set(groups.values()) == {0}


def test_a_job_takes_the_assets_of_its_groups(project: Project) -> None:
    """A pooled backbone's adapter, which has no languages, must not land in the job of a language."""
    pooled = Profile.model_validate(
        {
            "name": "own",
            "data": "bundled",
            "languages": ["deu"],
            "backbones": [
                {"name": "one", "kind": "lora", "model": "tiny:gemma3"},
                {"name": "two", "kind": "lora", "model": "tiny:gemma3", "scope": "pooled"},
            ],
        }
    )
    defs = build_defs(Project(pooled, load_card("polar"), project.home))
    jobs = {
        name: {name_of(key) for key in defs.resolve_job_def(name).asset_layer.selected_asset_keys}
        for name in ("language_pipeline", "report", "prepare_posts", "train_adapters", "train_pooled")
    }
    posts = {"raw_posts", "corpus_audit", "synthetic_posts", "deduped_posts"}
    models = {f"{name}_{part}" for name in ("one", "two") for part in ("adapter", "dev_probabilities")}
    assert jobs == {
        "language_pipeline": posts | models | {"thresholds", "ensemble_predictions"},
        "report": {"benchmark_report", "submission"},
        "prepare_posts": posts,
        "train_adapters": {"one_adapter"},
        "train_pooled": {"two_pooled_adapter"},
    }
    every = set().union(*jobs.values())
    graph = defs.resolve_asset_graph()
    assert every == {name_of(key) for key in graph.materializable_asset_keys}


def test_jobs_schedules_sensors_and_checks(project: Project) -> None:
    repository = build_defs(project).get_repository_def()
    assert {job for job in repository.job_names if not job.startswith("__")} == {
        "language_pipeline",
        "report",
        "prepare_posts",
        "train_adapters",
    }
    (schedule,) = repository.schedule_defs
    assert (schedule.name, schedule.cron_schedule, schedule.default_status.value) == (
        "weekly_retraining",
        "0 3 * * 1",
        "STOPPED",
    )
    assert {(sensor.name, sensor.default_status.value) for sensor in repository.sensor_defs} == {
        ("close_killed_runs", "RUNNING"),
        ("close_orphaned_runs", "RUNNING"),
        ("follow_languages", "RUNNING"),
        ("observe_release", "RUNNING"),
    }
    checks = {f"{name_of(key.asset_key)}:{key.name}" for key in repository.asset_graph.asset_check_keys}
    assert checks == {
        "raw_posts:schema_and_ids", "raw_posts:both_classes", "raw_posts:no_canary",
        "deduped_posts:folds_of_parents",
        *(f"{name}_dev_probabilities:{check}" for name in ("linear", "tiny_gemma")
          for check in ("complete", "finite", "not_constant", "sound")),
        "corpus_audit:language", "corpus_audit:shift", "corpus_audit:balance", "corpus_audit:cross_split_duplicates",
        "thresholds:finite", "thresholds:above_floor", "thresholds:learned",
        "ensemble_predictions:complete", "ensemble_predictions:valid", "ensemble_predictions:positive_share",
        "submission:valid", "submission:all_languages",
    }  # fmt: skip


def test_the_code_version_follows_the_settings_of_its_stage(tmp_path: Path) -> None:
    text = commented(load_profile("demo").model_copy(update={"name": "own"}))
    path = tmp_path / "own.yaml"
    path.write_text(text.replace("  resamples: 200\n", "  resamples: 100\n"), encoding="utf-8")

    def versions(profile: str) -> dict[str, str | None]:
        graph = build_defs(Project.load(profile, {"POLAR_HOME": str(tmp_path)})).resolve_asset_graph()
        return {name_of(key): graph.get(key).code_version for key in graph.materializable_asset_keys}

    before, after = versions("demo"), versions(str(path))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"thresholds", "benchmark_report"}  # what follows is made from their data


def test_what_curation_asks_of_other_stages_is_in_its_code_version(tmp_path: Path) -> None:
    def version(**changes: Any) -> str | None:
        profile = Profile.model_validate(
            {"name": "x", "description": "", "data": "bundled", "languages": ["deu"]} | changes
        )
        project = Project(profile, load_card("polar"), Home(tmp_path))
        return build_defs(project).resolve_asset_graph().get(dg.AssetKey(["x", "deduped_posts"])).code_version

    weak, asked = [{"name": "linear", "kind": "linear", "regularisation": 2.0}], {"source": "endpoint"}
    open_gate = {"gate": False}
    made = {"synthesis": {"source": "offline"}}
    assert version(backbones=weak, **made) != version(**made)  # the gate trains the linear backbone
    assert version(decision={"resamples": 10}, **made) != version(**made)
    assert version(backbones=weak) == version() == version(decision={"resamples": 10})  # there is nothing to gate
    assert version(curation=open_gate, backbones=weak) == version(curation=open_gate)
    other = {"source": "endpoint", "model": "other"}
    assert version(curation=open_gate, synthesis=asked) == version(curation=open_gate, synthesis=other)
    judge = {"gate": False, "judge": True}
    assert version(curation=judge, synthesis=asked) != version(curation=judge, synthesis=other)


def test_partitions_are_the_profiles_languages_heaviest_first(tmp_path: Path) -> None:
    graph = build_defs(Project.load("cpu", {"POLAR_HOME": str(tmp_path)})).resolve_asset_graph()
    keys = graph.get(dg.AssetKey(["cpu", "raw_posts"])).partitions_def.get_partition_keys()
    assert (len(keys), keys[:3], keys[-1]) == (22, ["swa", "khm", "zho"], "pan")


@pytest.mark.slow
def test_loading_the_definitions_imports_nothing_heavy_and_writes_nothing(tmp_path: Path) -> None:
    code = f"""
import sys
from polar_pipeline.definitions import defs
import dagster as dg
assert len(defs().resolve_all_asset_specs()) == 11
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "POLAR_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert not (tmp_path / "home").exists()


def test_definitions_are_loadable(project: Project) -> None:
    dg.Definitions.validate_loadable(build_defs(project))
