"""Results belong to one profile file: another one of the same name is refused, the same one edited or moved is not."""

import json
import shutil
from pathlib import Path

import pytest

from polar_pipeline.defs.project import BUNDLED, Project, claim_results
from polar_pipeline.errors import ExitCode, InputError
from polar_pipeline.storage.home import Home
from polar_pipeline_tests.conftest import polar

YAML = "name: own\ndata: bundled\nlanguages: [deu]\nbackbones: [{name: linear, kind: linear}]\n"


def profile(path: Path, settings: str = "") -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(YAML + settings)
    return path


def claim(root: Path, source: Path | str) -> str:
    """Claim the results of `root/home` for a profile; returns whose they are."""
    project = Project.load(str(source), {"POLAR_HOME": str(root / "home")})
    claim_results(project)
    return str(json.loads(project.results.settings.read_text())["source"])


def test_another_file_with_the_same_name_and_other_settings_is_refused(tmp_path: Path) -> None:
    first, second = profile(tmp_path / "a.yaml"), profile(tmp_path / "b.yaml", "seed: 3\nfolds: {count: 3}\n")
    assert claim(tmp_path, first) == str(first)
    before = (tmp_path / "home/profiles/own/profile.json").read_bytes()
    with pytest.raises(InputError) as refused:
        claim(tmp_path, second)
    assert str(refused.value) == (
        f"{tmp_path / 'home'} has results of profile 'own' of {first}, and {second} has the same name and other "
        f"settings (seed, folds.count): give {second} a name of its own (`name:`)."
    )
    assert (tmp_path / "home/profiles/own/profile.json").read_bytes() == before
    assert claim(tmp_path, first) == str(first)


def test_the_same_file_may_be_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = profile(tmp_path / "a.yaml")
    claim(tmp_path, path)
    profile(path, "seed: 3\n")
    monkeypatch.chdir(tmp_path)
    assert claim(tmp_path, "a.yaml") == str(path)  # named in another way
    assert json.loads((tmp_path / "home/profiles/own/profile.json").read_text())["settings"]["seed"] == 3


def test_a_file_that_was_moved_or_renamed_stays_the_same_profile(tmp_path: Path) -> None:
    path = profile(tmp_path / "a.yaml")
    claim(tmp_path, path)
    (tmp_path / "folder").mkdir()
    moved = path.rename(tmp_path / "folder/b.yaml")
    profile(moved, "seed: 3\n")
    assert claim(tmp_path, moved) == str(moved)


def test_equal_settings_are_the_same_profile(tmp_path: Path) -> None:
    first, second = profile(tmp_path / "a.yaml"), profile(tmp_path / "b.yaml", "description: a copy\n")
    claim(tmp_path, first)
    assert claim(tmp_path, second) == str(second)
    profile(first, "seed: 3\n")
    with pytest.raises(InputError, match="has the same name and other settings"):
        claim(tmp_path, first)
    profile(second, "seed: 3\n")  # both files were edited alike
    assert claim(tmp_path, first) == str(first)


def test_a_file_that_was_given_another_name_owns_these_results_no_more(tmp_path: Path) -> None:
    first, second = profile(tmp_path / "a.yaml"), profile(tmp_path / "b.yaml", "seed: 3\n")
    claim(tmp_path, first)
    first.write_text(YAML.replace("name: own", "name: other"))
    assert claim(tmp_path, second) == str(second)


def test_an_owner_that_is_not_valid_any_more_is_named(tmp_path: Path) -> None:
    first, second = profile(tmp_path / "a.yaml"), profile(tmp_path / "b.yaml", "seed: 3\n")
    claim(tmp_path, first)
    first.write_text("name: own\nseed: many\n")
    with pytest.raises(
        InputError, match=r"a.yaml, which is not valid now \(.*`seed` is .*many.*\): correct it, or give"
    ):
        claim(tmp_path, second)


def test_a_bundled_profile_and_a_copy_of_it(tmp_path: Path) -> None:
    assert claim(tmp_path, "demo") == BUNDLED
    copy = tmp_path / "demo.yaml"
    import polar_pipeline.settings.profile as settings

    copy.write_bytes(settings.profile_path("demo").read_bytes())
    assert claim(tmp_path, copy) == str(copy)
    assert claim(tmp_path, settings.profile_path("demo")) == BUNDLED


def test_profiles_of_different_names_do_not_meet(tmp_path: Path) -> None:
    claim(tmp_path, profile(tmp_path / "a.yaml"))
    other = profile(tmp_path / "b.yaml", "seed: 3\n")
    other.write_text(other.read_text().replace("name: own", "name: other"))
    assert claim(tmp_path, other) == str(other)


def test_a_copied_folder_has_results_of_its_own_profile(tmp_path: Path) -> None:
    claim(tmp_path / "first", profile(tmp_path / "first/own.yaml"))
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    copied = profile(tmp_path / "second/own.yaml", "seed: 3\n")
    assert Project.of_results(Home(tmp_path / "second/home"), "own").profile.seed == 3
    assert claim(tmp_path / "second", copied) == str(copied)


def test_a_moved_home_still_knows_its_profile(tmp_path: Path) -> None:
    claim(tmp_path, profile(tmp_path / "own.yaml", "seed: 3\n"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "home").rename(tmp_path / "folder/home")
    assert Project.of_results(Home(tmp_path / "folder/home"), "own").profile.seed == 3


def test_a_damaged_note_is_named(tmp_path: Path) -> None:
    path = profile(tmp_path / "a.yaml")
    claim(tmp_path, path)
    (tmp_path / "home/profiles/own/profile.json").write_text("{")
    with pytest.raises(InputError, match=r"profile.json is damaged: delete it"):
        claim(tmp_path, path)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["run", "--all"], ["ui", "--dagster-port", "3971", "--mlflow-port", "5971"]])
def test_run_and_ui_refuse_before_anything_is_written(tmp_path: Path, command: list[str]) -> None:
    first, second = profile(tmp_path / "a.yaml"), profile(tmp_path / "b.yaml", "seed: 3\n")
    claim(tmp_path, first)
    done = polar(tmp_path / "home", *command, "--profile", str(second), check=False)
    assert done.returncode == ExitCode.WRONG_INPUT
    assert len(done.stderr.splitlines()) == 1 and f"of {first}, and {second} has the same name" in done.stderr
    files = {file.relative_to(tmp_path / "home").parts[0] for file in (tmp_path / "home").rglob("*") if file.is_file()}
    assert files == {"profiles", "locks"}


def test_languages_may_be_named(tmp_path: Path) -> None:
    project = Project.load("cpu", {"POLAR_HOME": str(tmp_path)})
    assert project.check_languages(("German", "es", "eng")) == [c for c in project.codes if c in ("deu", "eng", "spa")]
    for unknown in ("French", "no such tongue"):
        with pytest.raises(InputError, match=f"language '{unknown}' is not in profile 'cpu'"):
            project.check_languages((unknown,))
