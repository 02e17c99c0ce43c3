"""Every command in the README is run, as it stands there, and every link leads somewhere."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from polar_pipeline.corpus.release import release_files
from polar_pipeline.pretrained.tiny import tokenizer
from polar_pipeline.settings.profile import Profile, load_profile
from polar_pipeline.settings.yaml_files import commented
from polar_pipeline.storage.fingerprint import file_sha256
from polar_pipeline_tests.conftest import DATA_DIR, real_data
from polar_pipeline_tests.pretrained.hub import at, hub
from polar_pipeline_tests.synthesis.made import Running, free_port

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]

# run as they stand, in one folder, in this order; POLAR_PROFILE makes them those of the demo where they name no profile
AS_THEY_STAND = ["polar data check", "polar run --all --force"]
AS_THEY_STAND += [line for line in COMMANDS if line.startswith(("printf ", "polar predict "))]
AS_THEY_STAND += ["polar profile new my.yaml --from demo", "polar run --all --profile my.yaml", "polar compare demo my"]
AS_THEY_STAND += ["polar init polar_pipeline/corpus/bundled/train/deu.csv --name comments"]
AS_THEY_STAND += ["polar run --all --profile comments.yaml"]
AS_THEY_STAND += ["polar export --profile demo", "polar status", "polar doctor", "polar prune --keep 3 --dry-run"]
AS_THEY_STAND += [f"polar synth {what} --profile my.yaml --language deu" for what in ("plan", "evaluate")]
AS_THEY_STAND += ["polar profile new large.yaml --from gpu", "dg check defs"]
# run by a test of their own below
ON_REAL_DATA = ["polar data fetch", "export POLAR_DATA_DIR=/path/to/release"]
ON_REAL_DATA += ["polar run --language deu --language swa --jobs 2", "polar run --all --profile cpu"]
LAPTOP = "polar run --all --profile laptop"
SERVERS = {  # with ports of their own, and an address that has to answer
    "polar ui": ("--dagster-port {} --mlflow-port {}", ["http://127.0.0.1:{}/server_info", "http://127.0.0.1:{}/"]),
    "dg dev": ("--port {}", ["http://127.0.0.1:{}/server_info"]),
}
MAKE = ["make run", "source .venv/bin/activate", "make lint", "make test", "make bench"]
ENDPOINT = ["export OPENAI_API_KEY=your-key", "polar run --all --profile my.yaml"]


def variables() -> dict[str, str]:
    """The environment of a user who has activated the virtual environment and set nothing."""
    foreign = ("POLAR_", "DAGSTER_", "MAKE", "OPENAI_", "PYTEST_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


def start(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=variables() | environment, capture_output=True, text=True, check=False
    )


def run(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    done = start(command, folder, **environment)
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
    assert set(COMMANDS) == {*AS_THEY_STAND, *ON_REAL_DATA, LAPTOP, *SERVERS, *MAKE, *ENDPOINT}


@pytest.mark.slow
def test_the_recipes(checkout: Path) -> None:
    for command in AS_THEY_STAND:
        run(command, checkout, POLAR_PROFILE="demo")
    results = checkout / ".polar" / "profiles" / "demo"
    assert (results / "report" / "index.html").exists() and any((results / "export").iterdir())


@pytest.mark.slow
def test_an_endpoint_writes_posts_after_the_lines_that_the_recipe_changes(checkout: Path, tmp_path: Path) -> None:
    """With a server in the endpoint's place, for one language and few posts, so that it takes seconds."""
    server = Running(tmp_path, {})
    try:
        text = with_recipe(commented(load_profile("demo").model_copy(update={"name": "my"})))
        fewer = {"posts: 60": "posts: 12", "[deu, eng, hin]": "[deu]", "base_url: null": f"base_url: {server.url}"}
        for old, new in fewer.items():
            assert old in text, old
            text = text.replace(old, new)
        (checkout / "my.yaml").write_text(text, encoding="utf-8")
        run(" && ".join(ENDPOINT), checkout, POLAR_HOME=str(tmp_path / "home"))
        assert server.get("count")["calls"] > 0
    finally:
        server.stop()


@real_data
@pytest.mark.slow
def test_fetch_takes_what_is_the_release_and_nothing_else(checkout: Path, tmp_path: Path) -> None:
    """From a server on this machine. Files whose test labels were taken out are not those of the organisers."""
    release = Path(str(DATA_DIR)).resolve()
    wrong = [name for name, sha256 in release_files().items() if file_sha256(release / name) != sha256]
    assert all(name.startswith("test/") for name in wrong)
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(release)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        port = re.findall(r"port (\d+)", server.stdout.readline())[0]
        address, home = f"http://127.0.0.1:{port}", tmp_path / "home"
        done = start(ON_REAL_DATA[0], checkout, POLAR_HOME=str(home), POLAR_RELEASE_URL=address)
    finally:
        server.kill()
        server.communicate()
    assert done.returncode == (2 if wrong else 0), done.stderr
    assert not wrong or "is not the file of the release" in done.stderr.splitlines()[-1]
    fetched = {path.relative_to(home / "data" / "release").as_posix() for path in home.rglob("*.csv")}
    assert fetched == release_files().keys() - wrong


@real_data
@pytest.mark.slow
def test_the_recipes_on_real_data(checkout: Path, tmp_path: Path) -> None:
    """The smallest language stands for all of them."""
    pointed = ON_REAL_DATA[1].replace("/path/to/release", str(Path(str(DATA_DIR)).resolve()))
    home = str(tmp_path / "real")
    run(f"{pointed} && polar data check --language pan", checkout, POLAR_HOME=home)
    run(f"{pointed} && {ON_REAL_DATA[2]}", checkout, POLAR_HOME=home)
    assert ON_REAL_DATA[3] == "polar run --all --profile cpu"
    run(f"{pointed} && polar run --language pan --profile cpu", checkout, POLAR_HOME=home)
    predictions = tmp_path / "real" / "profiles" / "cpu" / "predictions"
    assert {file.stem for file in predictions.iterdir()} == {"deu", "swa", "pan"}


@real_data
@pytest.mark.slow
def test_the_laptop_profile_downloads_its_model_once(checkout: Path, tmp_path: Path) -> None:
    """From a hub on this machine, a model of the same layout with random weights; one language stands for all."""
    data, home = str(Path(str(DATA_DIR)).resolve()), str(tmp_path / "home")
    model, command = load_profile("laptop").backbones[1].model, LAPTOP.replace("--all", "--language pan")
    with hub(model, twelve_layers(tmp_path / "model")) as address:
        variables = at(address, tmp_path / "hub") | {"POLAR_HOME": home, "POLAR_DATA_DIR": data}
        done = run(command, checkout, **variables)
    assert done.stdout.count(f"downloading model {model} once") == 1
    done = start(f"{command} --force", checkout, **(variables | {"HF_ENDPOINT": "http://127.0.0.1:9"}))
    assert done.returncode == 0 and "downloading" not in done.stdout
    variables |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "empty"), "POLAR_HOME": f"{home}2"}
    done = start(command, checkout, **variables)
    assert done.returncode == 2 and "name the folder of a copy instead" in done.stderr.splitlines()[-1]


def twelve_layers(folder: Path) -> Path:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 12, "num_attention_heads": 2}
    XLMRobertaModel(XLMRobertaConfig(vocab_size=300, max_position_embeddings=130, **sizes)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", SERVERS)
def test_servers_answer_until_they_are_interrupted(checkout: Path, tmp_path: Path, command: str) -> None:
    arguments, addresses = SERVERS[command]
    ports = [free_port() for _ in addresses]
    (tmp_path / "dagster").mkdir()
    environment = {"POLAR_HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path / "dagster"), "POLAR_PROFILE": "demo"}
    with subprocess.Popen(
        ["bash", "-c", f"exec {command} {arguments.format(*ports)}"], cwd=checkout, env=variables() | environment,
        stdout=(tmp_path / "printed").open("wb"), stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            for address, port in zip(addresses, ports, strict=True):
                wait_for(address.format(port), process)
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in (tmp_path / "printed").read_text(encoding="utf-8")


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 240
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"{address} does not answer")


@pytest.mark.slow
def test_make_run(checkout: Path) -> None:
    """Set up from nothing, run the demo, end with the report; and a second time without installing anything."""
    first = run("make run && source .venv/bin/activate && command -v polar", checkout)
    assert str(checkout / ".polar" / "profiles" / "demo" / "report" / "index.html") in first.stdout
    assert first.stdout.strip().endswith(str(checkout / ".venv" / "bin" / "polar"))
    stamp = (checkout / ".venv" / "installed").stat().st_mtime_ns
    second = run("make run", checkout)
    assert "-m pip" not in second.stdout and (checkout / ".venv" / "installed").stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_make_lint_test_and_bench(checkout: Path) -> None:
    """In this environment instead of one of their own, with one of the benchmarks and a few of the tests."""
    folder = checkout.parent / "made"
    shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns(".venv", ".polar"))
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        if (Path(sys.prefix) / name).exists():
            (folder / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    for stamp in ("installed", "installed-dev"):
        (folder / ".venv" / stamp).touch()
    if (ROOT / ".mypy_cache").is_dir():  # saves a minute
        shutil.copytree(ROOT / ".mypy_cache", folder / ".mypy_cache")
    run("make lint", folder, PYTHONPATH=str(folder))
    tested = run("make test", folder, PYTHONPATH=str(folder), PYTEST_ADDOPTS="polar_pipeline_tests/task")
    assert re.search(r"\d+ passed", tested.stdout)
    for script in (folder / "benchmarks").glob("*.py"):
        if script.name != "linear_speed.py":
            script.unlink()
    done = run("make bench", folder, PYTHONPATH=str(folder))
    assert "scikit-learn, ratio" in done.stdout


@pytest.mark.slow
def test_every_benchmark_starts() -> None:
    code = "import runpy, sys; [runpy.run_path(path, run_name='benchmark') for path in sys.argv[1:]]"
    scripts = sorted(str(path) for path in (ROOT / "benchmarks").glob("*.py"))
    assert len(scripts) > 10
    run(shlex.join([sys.executable, "-c", code, *scripts]), ROOT, PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}")


def with_recipe(copied: str) -> str:
    """A profile as the recipe for synthetic posts changes it; each of its lines has to be there once, to be changed."""
    recipe = README.partition("### Train on synthetic posts too")[2].partition("## ")[0]
    for line in re.findall(r"```yaml\n(.*?)```", recipe, re.DOTALL)[0].splitlines():
        key, _, value = line.split("#")[0].rstrip().partition(":")
        copied, changes = re.subn(rf"(?m)^{key}:.*$", f"{key}:{value}", copied, count=1)
        assert changes == 1, line
    return copied


def test_the_lines_that_the_synthetic_recipe_changes_are_in_the_profile_that_it_copies() -> None:
    profile = Profile.model_validate(yaml.safe_load(with_recipe(commented(load_profile("demo")))))
    assert profile.synthesis.source == "endpoint" and profile.curation.gate and profile.curation.near_duplicate == 0.9


def test_links_and_pictures_are_there() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (document.parent / link).exists(), f"{document.name}: {link}"
