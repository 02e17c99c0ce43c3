"""Profiles: every setting is explained, and everything wrong in one is named."""

import itertools
import re
import typing
from pathlib import Path

import pytest
import yaml

from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import ImportedSettings, LinearSettings, LoraSettings
from polar_pipeline.settings.curation import CurationSettings, LanguageShare
from polar_pipeline.settings.decision import STRATEGIES, DecisionSettings, FoldSettings, ReportSettings
from polar_pipeline.settings.profile import Profile, bundled_profiles, load_profile
from polar_pipeline.settings.synthesis import LanguagePlan, SynthesisSettings
from polar_pipeline.settings.yaml_files import Settings, commented, comments

FOLDER = Path(__file__).parents[2] / "polar_pipeline" / "profiles"
SECTIONS = ("folds", "synthesis", "curation", "decision", "report")
EXPLAINED = [Profile, FoldSettings, SynthesisSettings, LanguagePlan, CurationSettings, LanguageShare, DecisionSettings]
EXPLAINED += [ReportSettings, LinearSettings, ImportedSettings, LoraSettings]


def test_the_bundled_profiles() -> None:
    assert bundled_profiles() == ["cpu", "demo", "gpu", "laptop"]
    assert Project.load("demo").codes == ["eng", "deu", "hin"]
    assert len(Project.load("cpu").codes) == 22
    assert Project.load("cpu").codes[0] == "swa"


def sections(profile: Profile) -> list[Settings]:
    parts = [profile.folds, profile.synthesis, profile.curation, profile.decision, profile.report]
    return [profile, *parts, *profile.backbones]


@pytest.mark.parametrize("name", bundled_profiles())
def test_a_profile_is_shown_with_every_setting_and_its_reason(name: str) -> None:
    profile = load_profile(name)
    text = commented(profile)
    shown = Profile.model_validate(yaml.safe_load(text))
    assert shown == profile
    for part in sections(shown):
        assert part.model_fields_set == set(type(part).model_fields), type(part).__name__
    lines = text.splitlines()
    for before, line in itertools.pairwise(lines):
        if re.match(r"\s*(?:- )?\w+:", line):
            assert before.strip().startswith("#"), f"`{line.strip()}` has no comment"


@pytest.mark.parametrize("name", bundled_profiles())
def test_a_bundled_profile_holds_only_what_differs_and_says_why(name: str) -> None:
    profile, why = load_profile(name), comments(FOLDER / f"{name}.yaml")
    for place, part in [("", profile), *((section, getattr(profile, section)) for section in SECTIONS)]:
        for setting in part.model_fields_set - {"name", "description", "backbones", *SECTIONS}:
            assert getattr(part, setting) != type(part).model_fields[setting].get_default(), f"{name}: {setting}"
            assert f"{place}.{setting}".strip(".") in why, f"{name}: {setting}"
    for number, entry in enumerate(profile.backbones):
        for setting in entry.model_fields_set - {"name", "kind"}:
            assert getattr(entry, setting) != type(entry).model_fields[setting].get_default(), f"{name}: {setting}"
            assert f"backbones.{number}.{setting}" in why, f"{name}: {setting}"


@pytest.mark.parametrize("model", EXPLAINED, ids=lambda model: model.__name__)
def test_every_setting_and_every_choice_is_explained(model: type[Settings]) -> None:
    for name, field in model.model_fields.items():
        assert field.description and field.description.endswith("."), name
        options = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
        for option in options if len(options) > 1 else ():
            assert re.search(rf"\b{re.escape(option)}\b", field.description), f"{name}: {option} is not explained"
    if model is DecisionSettings:
        described = model.model_fields["strategy"].description or ""
        assert all(f"{strategy}:" in described for strategy in STRATEGIES)


def test_settings_survive_being_written(tmp_path: Path) -> None:
    """Odd values too: quotes, colons, other scripts, small numbers, plans per language."""
    given = {
        "name": "odd-1", "description": "it's: #1 \"नमस्ते\"\nnull", "languages": ["deu", "khm"], "seed": 7,
        "synthesis": {"per_language": {"khm": {"posts": 300, "shares": [0.7, 0.3, 0.0]}}, "max_dollars": None},
        "curation": {"per_language": {"khm": {"share": 0.0}}},
        "backbones": [
            {"name": "a", "kind": "imported", "path": "~", "backbone": "yes", "languages": ["deu"]},
            {"name": "b", "kind": "lora", "model": "none", "learning_rate": 1e-7, "seeds": [1, 2],
             "target_modules": ["q", "off"]},
            {"name": "c", "kind": "linear", "words": None, "cased_characters": [3, 4]},
        ],
    }  # fmt: skip
    profile = Profile.model_validate(given)
    path = tmp_path / "odd.yaml"
    path.write_text(commented(profile), encoding="utf-8")
    assert load_profile(str(path)) == profile


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seed: 20260223", "seeds: 1"), "`seeds` is unknown"),
        (("seed: 20260223", "seed: -1"), "`seed` is -1"),
        (("count: 5", "count: 1"), "`folds.count` is 1"),
        (("count: 5", "count: 0"), "folds.count: 0 leaves nothing .* for linear, it needs at least 2"),
        (("fit_on: train+dev", "fit_on: everything"), "`folds.fit_on` is 'everything'"),
        (("[deu, eng, hin]", "[deu, xyz]"), "'xyz' is not one of the task's"),
        (
            ("per_language: {}\n\n", "per_language: {xyz: {}}\n\n"),
            r"setting `synthesis\.per_language\.xyz` is 'xyz': language",
        ),
        (
            ("per_language: {}\n  # Whether each", "per_language: {xyz: {share: 0.1}}\n  # Whether each"),
            r"setting `curation\.per_language\.xyz` is 'xyz': language 'xyz' is not one of the task's",
        ),
        (("[deu, eng, hin]", "[deu, deu]"), "each once"),
        (
            ("words: [1, 2]", "words: [2, 1]"),
            r"setting `backbones\.0\.words` \(linear\) is \[2, 1\]: write the shortest and the longest length, "
            r"from 1 to 10, such as \[1, 3\], or null for none\.$",
        ),
        (("words: [1, 2]", "words: 2"), r"`backbones\.0\.words` \(linear\) is 2: write the shortest"),
        (("words: [1, 2]", "words: [0, 2]"), r"`backbones\.0\.words` \(linear\) is \[0, 2\]: write the shortest"),
        (("cased_characters: [1, 5]", "cased_characters: [1, 50]"), "is .1, 50.: write the shortest"),
        (("characters_in_words: [1, 6]", "characters_in_words: [one]"), "is .'one'.: write the shortest"),
        (
            ("shares: [0.8, 1.0, 1.0]", "shares: [0.8, -1.0, 1.0]"),
            r"backbones\.0 \(linear\): shares should be at least 0",
        ),
        (
            ("shares: [0.8, 1.0, 1.0]", "shares: [0, 0, 0]"),
            "and one above 0 for n-grams that are counted, not .0.0, 0.0, 0.0",
        ),
        (("[deu, eng, hin]", "[]"), "at least one language"),
        (("name: linear", "name: ridge"), "'ridge' is the name of a strategy"),
        (
            ("kind: linear", "kind: liner"),
            r"setting `backbones\.0\.kind` \(linear\) is 'liner': use one of linear, imported, lora, encoder\.$",
        ),
        (("    kind: linear\n", ""), r"setting `backbones\.0\.kind` \(linear\) is missing\.$"),
        (
            ("token_budget: 1024", "token_budget: 32"),
            r": backbones\.1 \(tiny_gemma\): token_budget 32 holds no row of max_length 64: raise it\.$",
        ),
        (
            ("seeds: [0]", "seeds: [3, 3]"),
            r"backbones\.1 \(tiny_gemma\): seeds should differ, these do not: 3, 3\.$",
        ),
        (
            ("patience: null", "patience: 2"),
            r": patience of tiny_gemma needs dev posts outside the folds: set folds\.fit_on to train\.$",
        ),
        (
            ("rank: 4", "rank: many"),
            r"setting `backbones\.1\.rank` \(tiny_gemma\) is 'many': Input should be a valid integer",
        ),
        (
            ("target_modules: all-linear", "target_modules: some"),
            r"`backbones\.1\.target_modules` \(tiny_gemma\) is 'some': Input should be 'all-linear' or a valid tuple\.",
        ),
        (
            ("languages: all", "languages: [xx]"),
            r": backbones\.1 \(tiny_gemma\): languages names xx, use all or some of",
        ),
        (
            ("languages: all", "languages: [deu, swa]"),
            r"languages names swa, use all or some of the profile's: deu, eng, hin\.$",
        ),
        (("languages: all", "languages: []"), "languages names none, use all or some of"),
        (("model: gpt-4o-mini", 'model: ""'), "`synthesis.model` is ''"),
        (("max_dollars: 10.0", "max_dollars: .inf"), "`synthesis.max_dollars` is inf: Input should be a finite number"),
        (
            ("price_prompt: 0.15", "price_prompt: .nan"),
            "`synthesis.price_prompt` is nan: Input should be a finite number",
        ),
        (
            ("strategy: simplex", "strategy: simplx"),
            "decision.strategy .simplx. is none of equal, simplex, ridge, linear",
        ),
        (
            ("shares: [0.5, 0.3, 0.2]", "shares: [5, 3, 2]"),
            "`synthesis.shares` .* sum to 1, these sum to 10: correct them",
        ),
        (
            ("surface_share: 0.03", "surface_share: 0.03\n    learning_rate: 1"),
            r"setting `backbones\.0\.learning_rate` \(linear\) is unknown",
        ),
    ],
)
def test_mistakes_are_named_with_file_and_setting(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "own.yaml"
    text = commented(load_profile("demo").model_copy(update={"name": "own"}))
    assert change[0] in text
    path.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        Project.load(str(path), {"POLAR_HOME": str(tmp_path / "home")})
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text and "Value error" not in text and "{" not in text and len(text) < len(str(path)) + 500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed: 1\nseed: 2", "is not YAML: setting `seed` is given twice .* line 2"),
        ("folds: {count: 5}\nreport: {}\nfolds: {fit_on: train}", "setting `folds` is given twice .* line 3"),
        ("decision: {threshold: half, threshold: bagged}", "setting `threshold` is given twice"),
        ("1: x", r"key 1 is no text: give the name of a setting\.$"),
        ("folds: {2: x}", r"key 2 of `folds` is no text: give the name of a setting\.$"),
    ],
)
def test_a_setting_that_would_be_lost_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_profile(str(path))


def test_posts_made_of_folds_need_folds() -> None:
    imported = {"name": "a", "kind": "imported", "path": "x"}
    given = {"name": "x", "description": "", "folds": {"count": 0}, "backbones": [imported]}
    assert Profile.model_validate(given).folds.count == 0
    with pytest.raises(
        ValueError, match=r"synthesis\.source offline makes posts of those in folds, and folds\.count is 0: set"
    ):
        Profile.model_validate(given | {"synthesis": {"source": "offline"}})


def test_early_stopping_where_dev_is_outside_the_folds() -> None:
    lora = {"name": "a", "kind": "lora", "model": "tiny:gemma3", "patience": 2}
    given = {"name": "x", "description": "", "backbones": [lora]}
    for folds in ({"fit_on": "train"}, {"count": 0}):
        assert Profile.model_validate(given | {"folds": folds})
    with pytest.raises(ValueError, match=r"set folds\.fit_on to train"):
        Profile.model_validate(given)


def test_imported_scores_name_languages_of_the_profile(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("backbones: [{name: a, kind: imported, path: x, languages: [deu, xx]}]")
    with pytest.raises(InputError, match=r"own\.yaml: backbones\.0 \(a\): languages names xx, use all or some of"):
        Project.load(str(path))


def test_some_kind_of_n_grams_is_counted() -> None:
    with pytest.raises(ValueError, match="are all null: give one of them its lengths"):
        LinearSettings(words=None, characters_in_words=None, cased_characters=None)
    with pytest.raises(ValueError, match="one above 0 for n-grams that are counted"):
        LinearSettings(words=None, shares=(1.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("own.yaml", "own"), ("My Try (2).yml", "my-try-2"), ("Über_uns.yaml", "uber_uns"), ("-x-.yaml", "x"),
        ("a.b.yaml", "a-b"),
    ],
)  # fmt: skip
def test_a_profile_without_a_name_has_that_of_its_file(tmp_path: Path, file: str, name: str) -> None:
    path = tmp_path / "some.folder" / file
    path.parent.mkdir()
    path.write_text("seed: 1\n", encoding="utf-8")
    assert load_profile(str(path)).name == name


@pytest.mark.parametrize("file", ["12.yaml", "профиль.yaml", "_.yaml", "你好.yml"])
def test_a_file_that_gives_no_name_needs_one_in_it(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    path.write_text("seed: 1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"no name can be made of it: rename the file, or give a name in it"):
        load_profile(str(path))
    path.write_text("name: own\nseed: 1\n", encoding="utf-8")
    assert load_profile(str(path)).name == "own"


@pytest.mark.parametrize(
    ("file", "content", "remedy"),
    [
        ("mine.yaml", "name: cpu\nfolds: {count: 4}", r"\(folds\.count\): .* \(`name:`\), or leave `name` out\.$"),
        ("cpu.yaml", "folds: {count: 4}", r"\(folds\.count\): give it a name of its own \(`name:`\)\.$"),
        ("CPU.yml", "backbones: [{kind: linear, shares: [1, 1, 1]}]", r"\(backbones\.0\.shares\): "),
        ("12.yaml", "name: cpu\nseed: 1", r"\(seed\): give it a name of its own \(`name:`\)\.$"),
        ("a/demo.yaml", "seed: 1", r"'demo' and other settings \(data, languages, seed, \.\.\.\): give"),
    ],
)
def test_other_settings_need_another_name_than_a_bundled_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: str, remedy: str
) -> None:
    """Otherwise the results of a changed copy would pass for those of the profile."""
    monkeypatch.chdir(tmp_path)
    for path in (Path(file), tmp_path / file):
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=remedy) as caught:
            load_profile(str(path))
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        path.write_text(content + "\nname: own" if "name" not in content else content.replace("cpu", "own"))
        assert load_profile(str(path)).name == "own"


def test_the_same_settings_may_keep_the_name(tmp_path: Path) -> None:
    for name in bundled_profiles():
        path = tmp_path / f"{name}.yaml"
        path.write_text(commented(load_profile(name)), encoding="utf-8")
        assert load_profile(str(path)) == load_profile(name)
    path.write_text("name: cpu\ndescription: another\n")
    assert load_profile(str(path)).description == "another"
    assert load_profile(str(FOLDER / "demo.yaml")) == load_profile("demo")


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="'cpuu' does not exist: use cpu, demo, gpu, laptop or the path of a YAML"):
        load_profile("cpuu")
