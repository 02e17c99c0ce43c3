"""`polar profile`: what it prints loads to the same settings, and what it writes can be run with."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from polar_pipeline.cli import polar
from polar_pipeline.errors import InputError
from polar_pipeline.settings.profile import Profile, bundled_profiles, load_profile


def run(*arguments: str) -> str:
    done = CliRunner().invoke(polar, ["profile", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_the_bundled_profiles_are_listed() -> None:
    assert [line.split("  ")[0].strip() for line in run("list").splitlines()] == bundled_profiles()


@pytest.mark.parametrize("name", bundled_profiles())
def test_what_is_shown_loads_to_the_same_settings(name: str) -> None:
    assert Profile.model_validate(yaml.safe_load(run("show", name))) == load_profile(name)


def test_why_a_bundled_profile_differs_is_shown_beside_the_reason() -> None:
    lines = run("show", "demo").splitlines()
    place = lines.index("  near_duplicate: 0.98")
    assert lines[place - 1] == "  # Here: A perturbed copy is a near-duplicate by design."
    assert "The default is 0.9." in " ".join(lines[place - 4 : place - 1])


def test_a_written_profile_has_the_settings_of_its_source_and_the_name_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "My Own.yaml"
    assert str(path) in run("new", str(path), "--from", "demo")
    own = load_profile(str(path))
    assert own.name == "my-own" and not own.differences(load_profile("demo"))
    path.write_text(path.read_text(encoding="utf-8").replace("rank: 4", "rank: 3"), encoding="utf-8")
    assert own.differences(load_profile(str(path))) == {"backbones.1.rank": (4, 3)}
    again = tmp_path / "again.yaml"
    run("new", str(again), "--from", str(path))
    assert not load_profile(str(again)).differences(load_profile(str(path)))


def test_what_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "there.yaml").write_text("seed: 1")
    refused = {
        "there.yaml": "exists already: give another path, or remove it",
        "cpu.yaml": "cpu is the name of a bundled profile: give .* another name",
        "12.yaml": "no name can be made of it",
        "own": "should end with .yaml",
        "gone/own.yaml": "cannot be written .No such file or directory.: give a path",
    }
    for name, sentence in refused.items():
        with pytest.raises(InputError, match=sentence):
            run("new", str(tmp_path / name))
    with pytest.raises(InputError, match="'cpuu' does not exist: use cpu, demo, gpu, laptop or the path"):
        run("new", str(tmp_path / "own.yaml"), "--from", "cpuu")
    with pytest.raises(InputError, match="'xyz' is not one of the task's"):
        (tmp_path / "there.yaml").write_text("languages: [xyz]")
        run("show", str(tmp_path / "there.yaml"))
    assert [file.name for file in tmp_path.iterdir()] == ["there.yaml"]
