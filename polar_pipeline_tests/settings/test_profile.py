"""Profiles: every setting is explained, and everything wrong in one is named."""

import itertools
import re
from pathlib import Path

import pytest

from polar_pipeline.errors import InputError
from polar_pipeline.settings.profile import Profile, bundled_profiles, load_profile

FOLDER = Path(__file__).parents[2] / "polar_pipeline" / "profiles"


def test_the_bundled_profiles() -> None:
    assert bundled_profiles() == ["cpu", "demo", "gpu"]
    assert load_profile("demo").codes == ["eng", "deu", "hin"]
    assert len(load_profile("cpu").codes) == 22
    assert load_profile("cpu").codes[0] == "swa"


@pytest.mark.parametrize("name", bundled_profiles())
def test_every_setting_of_a_bundled_profile_has_a_comment_above_it(name: str) -> None:
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    for before, line in itertools.pairwise(lines):
        setting = re.match(r"\s*(?:- )?(\w+): \S", line)
        if setting and setting[1] not in {"name", "description"}:
            assert before.strip().startswith("#"), f"{name}.yaml: `{line.strip()}` has no comment"


@pytest.mark.parametrize("name", bundled_profiles())
def test_a_bundled_profile_says_everything(name: str) -> None:
    """No setting is left to a default that the reader of the file cannot see."""
    profile = load_profile(name)
    for part in (
        profile,
        profile.folds,
        profile.synthesis,
        profile.curation,
        profile.decision,
        profile.report,
        *profile.backbones,
    ):
        assert part.model_fields_set == set(type(part).model_fields), f"{name}.yaml: {type(part).__name__}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seed: 20260223", "seeds: 1"), "`seeds` is unknown"),
        (("seed: 20260223", "seed: -1"), "`seed` is -1"),
        (("count: 5", "count: 1"), "`folds.count` is 1"),
        (("count: 5", "count: 0"), "folds.count: 0 leaves nothing .* for linear, it needs at least 2"),
        (("fit_on: train+dev", "fit_on: everything"), "`folds.fit_on` is 'everything'"),
        (("[deu, eng, hin]", "[deu, xyz]"), "'xyz' is not one of the task's"),
        (("[deu, eng, hin]", "[deu, deu]"), "each once"),
        (("[deu, eng, hin]", "[]"), "at least one language"),
        (("name: linear", "name: ridge"), "'ridge' is the name of a strategy"),
        (
            ("kind: linear", "kind: liner"),
            r"setting `backbones\.0\.kind` \(linear\) is 'liner': use one of linear, imported, lora\.$",
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
            r"setting `backbones\.1\.target_modules` \(tiny_gemma\) is 'some': Input should be 'all-linear' or a valid tuple\.$",
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
            ("final: retrain", "final: retrain\n    learning_rate: 1"),
            r"setting `backbones\.0\.learning_rate` \(linear\) is unknown",
        ),
    ],
)
def test_mistakes_are_named_with_file_and_setting(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "own.yaml"
    text = (FOLDER / "demo.yaml").read_text(encoding="utf-8")
    assert change[0] in text
    path.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        load_profile(str(path))
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text and "Value error" not in text and "{" not in text and len(text) < len(str(path)) + 500


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


def test_imported_scores_name_languages_of_the_profile() -> None:
    imported = {"name": "a", "kind": "imported", "path": "x", "languages": ["deu", "xx"]}
    with pytest.raises(ValueError, match=r"backbones\.0 \(a\): languages names xx"):
        Profile.model_validate({"name": "x", "description": "", "backbones": [imported]})


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="'cpuu' does not exist: use cpu, demo, gpu or the path of a YAML file"):
        load_profile("cpuu")


def test_the_fingerprint_is_of_the_settings_not_of_the_name() -> None:
    one = Profile(name="one", description="a")
    assert one.fingerprint == Profile(name="two", description="b").fingerprint
    assert one.fingerprint != Profile(name="one", description="a", seed=1).fingerprint
