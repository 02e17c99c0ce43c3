"""Every command in the README is run, as it stands there, and every link leads somewhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from polar_pipeline.settings.profile import Profile, load_profile
from polar_pipeline.settings.yaml_files import commented
from polar_pipeline_tests.conftest import DATA_DIR, real_data

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]

# run here as they stand, in one folder, in this order; POLAR_PROFILE makes them those of the demo where they name no profile
AS_THEY_STAND = ["polar data check", "polar run --all --resume", "dg check defs"]
AS_THEY_STAND += [line for line in COMMANDS if line.startswith(("printf ", "polar predict "))]
AS_THEY_STAND += [
    "polar profile new large.yaml --from gpu",
    "polar profile new my.yaml --from demo",
    "polar run --all --profile my.yaml",
]
AS_THEY_STAND += [f"polar synth {what} --profile my.yaml --language deu" for what in ("plan", "evaluate")]
AS_THEY_STAND += ["POLAR_HOME=.polar-other polar run --all --profile my.yaml", "polar compare .polar .polar-other"]
ON_REAL_DATA = ["polar run --language deu --language swa --jobs 2", "polar run --all --profile cpu"]
# run by another test: where
ELSEWHERE = {
    "make run": "test_make_run",
    "make test": "the run that this test is part of; its recipe is checked by test_make_knows",
    "make lint": "test_make_knows, and .ci/run",
    "make bench": "test_make_knows; it measures for minutes",
    "source .venv/bin/activate": "test_make_run",
    "polar data fetch": "test_cli, and corpus/test_release.py against a server that misbehaves",
    "export POLAR_DATA_DIR=/path/to/release": "every test on real data",
    "polar ui": "defs/test_ui.py",
    "export OPENAI_API_KEY=your-key": "test_endpoint_run.py, against a server that misbehaves",
}


def run(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("POLAR_", "DAGSTER_", "MAKE"))}
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=variables | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git knows, as a fresh clone would have them."""
    folder = tmp_path_factory.mktemp("clone") / "polar_pipeline"
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in files:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def test_every_command_is_run_by_a_test() -> None:
    assert set(COMMANDS) == {*AS_THEY_STAND, *ON_REAL_DATA, *ELSEWHERE}


@pytest.mark.slow
def test_the_recipes(checkout: Path) -> None:
    for command in AS_THEY_STAND:
        run(command, checkout, POLAR_PROFILE="demo")
    assert (checkout / ".polar" / "report" / "index.html").exists()


@real_data
@pytest.mark.slow
def test_the_recipes_on_real_data(checkout: Path) -> None:
    """The command for all languages takes minutes, so it is run for the smallest one; the other as it stands."""
    environment = {"POLAR_DATA_DIR": str(Path(str(DATA_DIR)).resolve()), "POLAR_HOME": str(checkout / "real")}
    run(ON_REAL_DATA[0], checkout, **environment)
    assert ON_REAL_DATA[1] == "polar run --all --profile cpu"
    run("polar run --language pan --profile cpu", checkout, **environment)
    assert {file.stem for file in (checkout / "real" / "predictions").iterdir()} == {"deu", "swa", "pan"}


@pytest.mark.slow
def test_make_run(checkout: Path) -> None:
    """Set up from nothing, run the demo, end with the report; and a second time without installing anything."""
    first = run("make run && source .venv/bin/activate && command -v polar", checkout)
    assert str(checkout / ".polar" / "report" / "index.html") in first.stdout
    assert first.stdout.strip().endswith(str(checkout / ".venv" / "bin" / "polar"))
    stamp = (checkout / ".venv" / "installed").stat().st_mtime_ns
    second = run("make run", checkout)
    assert "-m pip" not in second.stdout and (checkout / ".venv" / "installed").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("target", ["run", "test", "lint", "bench", "ui"])
def test_make_knows(target: str) -> None:
    assert run(f"make --dry-run {target}", ROOT).stdout


def test_the_lines_that_the_synthetic_recipe_changes_are_in_the_profile_that_it_copies() -> None:
    recipe = README.partition("### Train on synthetic posts too")[2].partition("### ")[0]
    copied = commented(load_profile("demo"))
    lines = re.findall(r"```yaml\n(.*?)```", recipe, re.DOTALL)[0].splitlines()
    for line in lines:
        key, _, value = line.split("#")[0].rstrip().partition(":")
        copied, changes = re.subn(rf"(?m)^{key}:.*$", f"{key}:{value}", copied, count=1)
        assert changes == 1, line
    changed = yaml.safe_load(copied)
    profile = Profile.model_validate(changed)
    assert profile.synthesis.source == "endpoint" and profile.curation.gate and profile.curation.near_duplicate == 0.9


def test_links_and_pictures_are_there() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (document.parent / link).exists(), f"{document.name}: {link}"
