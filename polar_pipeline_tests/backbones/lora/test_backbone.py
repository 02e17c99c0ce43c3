"""The whole backbone: out of fold is out of fold, what is done is not done again, and what does not fit is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file as load_numpy

from polar_pipeline.backbones.artifacts import AdapterRef, load_adapter
from polar_pipeline.backbones.base import SCORE_COLUMNS, Progress
from polar_pipeline.backbones.lora import backbone as module
from polar_pipeline.backbones.lora.backbone import LoraBackbone
from polar_pipeline.backbones.lora.base_model import score_tokens
from polar_pipeline.backbones.lora.dataset import LanguageDataset, TokenizedRows, TrainingTask
from polar_pipeline.backbones.lora.loading import ModelCache
from polar_pipeline.backbones.lora.training import train_model
from polar_pipeline.backbones.lora.tunable import AdaptedModel
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import auc
from polar_pipeline.pretrained.tiny import tiny_checkpoint
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.storage.fingerprint import fingerprint, folder_sha256
from polar_pipeline_tests.backbones.lora import processes
from polar_pipeline_tests.backbones.lora.examples import CARD, posts, settings


def backbone(root: Path, bases: ModelCache | None = None, **changes: object) -> LoraBackbone:
    return LoraBackbone(settings(**changes), 1, 2, CARD, root, bases or ModelCache())


def trained(model: LoraBackbone, given: pd.DataFrame, language: str = "deu") -> tuple[AdapterRef, list[str]]:
    said: list[str] = []
    return model.train(language, given, Progress(said.append)), said


def scored(model: LoraBackbone, given: pd.DataFrame) -> pd.DataFrame:
    return model.score("deu", trained(model, given)[0], given)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AdapterRef]:
    """A root with one trained language; to be copied before it is changed."""
    root = tmp_path_factory.mktemp("finished")
    return root, trained(backbone(root), posts())[0]


@pytest.fixture
def copy(finished: tuple[Path, AdapterRef], tmp_path: Path) -> tuple[Path, AdapterRef]:
    return Path(shutil.copytree(finished[0], tmp_path / "root")), finished[1]


def forget_scores(root: Path) -> None:
    shutil.rmtree(root / "scored")


def test_every_post_is_scored_once_in_its_order(finished: tuple[Path, AdapterRef]) -> None:
    root, ref = finished
    given = posts()
    table = backbone(root).score("deu", ref, given)
    assert list(table.columns) == SCORE_COLUMNS
    for column in ("id", "split", "fold"):
        assert table[column].tolist() == given[column].tolist()
    assert table["logit"].nunique() == len(given)


def test_out_of_fold_logits_are_those_of_the_folds_model_and_the_rest_of_the_final_one(
    finished: tuple[Path, AdapterRef], tmp_path: Path
) -> None:
    """Computed again: models that are trained on the posts outside a fold, by hand, score the posts in it."""
    root, ref = finished
    given = posts()
    table = backbone(root).score("deu", ref, given)
    chosen = settings()
    tunable = ModelCache().get(chosen, root)
    for fold in (0, 1):
        held_out = (given["fold"] == fold).to_numpy()
        others = given[(given["fold"] >= 0).to_numpy() & ~held_out]
        labels = others["label"].to_numpy(dtype=np.int64)
        rows = TokenizedRows(tunable.base.tokens(others["text"].tolist()), labels, np.zeros(len(labels), dtype=bool))
        start = int(fingerprint([1, 0, fold])[:8], 16)
        task = TrainingTask("by hand", "by-hand", rows, np.ones(len(labels)), None, rows, start)
        train_model(tunable, task, chosen, tmp_path / "none", Progress())
        again = score_tokens(tunable.base, tunable.base.tokens(given["text"][held_out].tolist()), 128)
        np.testing.assert_allclose(table["logit"][held_out], again, atol=1e-5)
    found = backbone(root).logits("deu", ref, given["text"].tolist(), (0,))["label"]
    rest = (given["fold"] < 0).to_numpy()
    np.testing.assert_allclose(table["logit"][rest], found[rest], atol=1e-5)


def test_a_held_out_post_cannot_reach_the_model_that_scores_it(
    finished: tuple[Path, AdapterRef], tmp_path: Path
) -> None:
    """Flip the labels of one fold: its own scores stay, those of the other fold move."""
    root, ref = finished
    given = posts()
    flipped = given.assign(label=given["label"].where(given["fold"] != 1, 1 - given["label"]))
    before, after = backbone(root).score("deu", ref, given), scored(backbone(tmp_path), flipped)
    inside = (given["fold"] == 1).to_numpy()
    np.testing.assert_array_equal(before["logit"][inside], after["logit"][inside])
    elsewhere = ~inside & (given["fold"] >= 0).to_numpy()
    assert (before["logit"][elsewhere] != after["logit"][elsewhere]).all()


def test_a_leak_between_folds_would_be_seen(tmp_path: Path) -> None:
    """Labels are noise: honest out-of-fold scores know nothing of them, though the final model learns many by heart."""
    given = posts(train=60)
    labels = np.random.default_rng(0).integers(0, 2, len(given))
    noise = given.assign(label=pd.array(labels, dtype="Int8"))
    model = backbone(tmp_path, epochs=10, learning_rate=0.01, token_budget=1024)
    ref, _ = trained(model, noise)
    table = model.score("deu", ref, noise)
    rows = (noise["fold"] >= 0).to_numpy()
    fitted = model.logits("deu", ref, given["text"].tolist(), (0,))["label"]
    assert auc(labels[rows], fitted[rows]) > 0.8  # it could have learned them
    assert abs(auc(labels[rows], table["logit"][rows].to_numpy()) - 0.5) < 0.2


def test_another_process_trains_the_same_adapter(here: dict[str, str], elsewhere: dict[str, str]) -> None:
    assert here["ref"] == elsewhere["ref"]


def test_an_adapter_does_not_depend_on_what_was_trained_before(
    finished: tuple[Path, AdapterRef], tmp_path: Path
) -> None:
    model = backbone(tmp_path)
    others = posts(train=20).assign(text=lambda rows: rows["text"].str.upper())
    other, _ = trained(model, others, "eng")
    ref, _ = trained(model, posts())
    assert ref == finished[1]
    again, _ = trained(backbone(tmp_path / "alone"), others, "eng")
    assert again == other


def test_one_base_serves_all_and_a_second_run_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bases = ModelCache()
    model = backbone(tmp_path, bases)
    first, _ = trained(model, posts())
    trained(model, posts(), "eng")
    assert bases.loads == 1
    monkeypatch.setattr(module, "train_model", lambda *given: pytest.fail("trained again"))
    again, said = trained(backbone(tmp_path), posts())
    assert again == first and said == ["deu: trained before, nothing to do"]
    # how it is computed is no reason to train again
    assert trained(backbone(tmp_path, recompute="always", checkpoint_seconds=5, threads=2), posts())[0] == first


def test_a_finished_language_loads_no_base(finished: tuple[Path, AdapterRef]) -> None:
    """Neither to train it, which is nothing, nor to score what was scored in training."""
    bases = ModelCache()
    model = backbone(finished[0], bases)
    assert trained(model, posts())[0] == finished[1]
    model.score("deu", finished[1], posts())
    assert bases.loads == 0


def test_two_bases_that_do_not_fit_together_are_loaded_for_what_is_not_finished_alone(
    finished: tuple[Path, AdapterRef], copy: tuple[Path, AdapterRef]
) -> None:
    bases = ModelCache()
    one, other = backbone(copy[0], bases), backbone(copy[0], bases, name="other", model="tiny:qwen3")
    for _ in range(2):
        for language in ("deu", "eng"):
            for model in (one, other):
                trained(model, posts(), language)
                bases.release()  # as where there is room for one
    assert bases.loads == 3  # eng of one, and both of the other


def test_what_a_training_took_is_known_when_it_is_found_again_and_is_no_part_of_the_adapter(tmp_path: Path) -> None:
    first, second = Progress(), Progress()
    ref = backbone(tmp_path).train("deu", posts(), first)
    assert backbone(tmp_path).train("deu", posts(), second) == ref
    assert second.figures.items() <= first.figures.items()
    keys = ("fold-0-seed-0", "fold-1-seed-0", "final-seed-0")
    assert second.figures["train_seconds"] == pytest.approx(sum(second.figures[f"{key}/seconds"] for key in keys))
    assert all(
        second.figures[f"{key}/{name}"] > 0 for key in keys for name in ("loss", "dev_loss", "tokens_per_second")
    )
    third = Progress()
    backbone(tmp_path).score("deu", ref, posts(), third)
    assert third.figures["posts_per_second"] == first.figures["posts_per_second"] > 0
    shutil.rmtree(tmp_path / "figures")
    nothing = Progress()
    assert backbone(tmp_path).train("deu", posts(), nothing) == ref and nothing.figures == {}


def test_an_adapter_of_another_language_is_refused_whatever_its_reference_says(
    copy: tuple[Path, AdapterRef],
) -> None:
    root, ref = copy
    for ask in (
        lambda: backbone(root).score("eng", ref, posts()),
        lambda: backbone(root).logits("eng", ref, ["a"], (0,)),
    ):
        with pytest.raises(InputError, match=r"language is 'deu', not 'eng'.*materialize tiny_adapter for eng again"):
            ask()
    forged = ref.model_copy(update={"language": "eng"})
    for ask in (
        lambda: backbone(root).score("eng", forged, posts()),
        lambda: backbone(root).logits("eng", forged, ["a"], (0,)),
    ):
        with pytest.raises(InputError, match=r"is not what its reference says \(language is 'eng', not 'deu'\)"):
            ask()


def test_new_texts_are_scored_and_not_kept(copy: tuple[Path, AdapterRef]) -> None:
    root, ref = copy
    backbone(root).logits("deu", ref, ["before"], (0,))  # the hashes of the base are kept
    before = sorted(root.rglob("*"))
    for text in ("one", "another"):
        assert backbone(root).logits("deu", ref, [text], (0,))["label"].shape == (1,)
    assert sorted(root.rglob("*")) == before
    assert backbone(root).logits("deu", ref, [], (0,))["label"].shape == (0,)


def test_the_probe_is_what_the_final_model_gives_dev_posts_that_it_was_trained_on(tmp_path: Path) -> None:
    given = posts()
    inside = given["split"] != "test"
    given = given.assign(fold=pd.array(np.where(inside, given.index % 2, -1), dtype="Int8"))
    ref, _ = trained(backbone(tmp_path), given)
    probes = backbone(tmp_path).probes(ref, given)
    dev = given[given["split"] == "dev"]
    assert probes["id"].tolist() == dev["id"].tolist() and probes["fold"].tolist() == dev["fold"].tolist()
    again = backbone(tmp_path).logits("deu", ref, dev["text"].tolist(), (0,))["label"]
    np.testing.assert_allclose(probes["logit"], again, atol=1e-5)
    table = backbone(tmp_path).score("deu", ref, given)
    unseen = table.loc[(given["split"] == "dev").to_numpy(), "logit"].to_numpy()
    assert np.abs(unseen - again).min() > 1e-6  # out of fold they are others


def test_scores_that_were_lost_are_computed_again_from_disk(copy: tuple[Path, AdapterRef]) -> None:
    root, ref = copy
    before = backbone(root).score("deu", ref, posts())
    forget_scores(root)
    bases = ModelCache()
    after = backbone(root, bases).score("deu", ref, posts())
    assert bases.loads == 1
    pd.testing.assert_frame_equal(before, after)


def test_stale_posts_settings_and_languages_are_refused(finished: tuple[Path, AdapterRef]) -> None:
    root, ref = finished
    given = posts()
    changed = given.assign(label=given["label"].where(given.index != 0, 1 - given["label"]))
    with pytest.raises(InputError, match=r"posts_fingerprint.*materialize tiny_adapter for deu again"):
        backbone(root).score("deu", ref, changed)
    for changes in ({"rank": 2}, {"learning_rate": 0.1}, {"model": "tiny:qwen3"}, {"max_length": 16}):
        with pytest.raises(InputError, match="config_fingerprint"):
            backbone(root, **changes).score("deu", ref, given)
    with pytest.raises(InputError, match="config_fingerprint"):
        LoraBackbone(settings(), 2, 2, CARD, root, ModelCache()).score("deu", ref, given)


def test_posts_that_are_only_watched_belong_to_what_an_adapter_is_made_of(
    copy: tuple[Path, AdapterRef],
) -> None:
    """Early stopping looks at dev, and its logits are compared with those from disk: other dev posts, other adapter."""
    root, ref = copy
    given = posts()
    dev = given["split"] == "dev"
    for changed in (
        given.assign(text=given["text"].where(~dev, "something else")),
        given.assign(label=given["label"].where(~dev, 1 - given["label"])),
        given[~(dev & (given["label"] == 1))].reset_index(drop=True),
    ):
        with pytest.raises(InputError, match="posts_fingerprint"):
            backbone(root).score("deu", ref, changed)
    again, said = trained(backbone(root), changed)
    assert again != ref and "deu: trained before, nothing to do" not in said


def test_texts_of_test_do_not_reach_training(copy: tuple[Path, AdapterRef]) -> None:
    root, ref = copy
    given = posts()
    other = given.assign(text=given["text"].where(given["split"] != "test", "something else"))
    assert trained(backbone(root), other)[0] == ref
    table = backbone(root).score("deu", ref, other)
    assert table["logit"][(given["split"] == "test").to_numpy()].nunique() == 1


def test_another_base_under_the_same_name_is_refused(copy: tuple[Path, AdapterRef], tmp_path: Path) -> None:
    root, ref = copy
    forget_scores(root)
    place = tiny_checkpoint("tiny:gemma3", root / "bases")
    shutil.rmtree(place)
    tiny_checkpoint("tiny:gemma3", tmp_path / "other", seed=1).rename(place)
    for ask in (
        lambda: backbone(root).score("deu", ref, posts()),
        lambda: backbone(root).logits("deu", ref, ["a"], (0,)),
    ):
        with pytest.raises(InputError, match=r"was trained on other weights of 'tiny:gemma3' .* than are there now"):
            ask()
    assert trained(backbone(root), posts())[0] != ref


def test_one_byte_deep_in_the_weights_makes_another_base(bases_root: Path, tmp_path: Path) -> None:
    """The size stays, and so does the time of change: an adapter of other weights gives wrong logits without a word."""
    folder = Path(shutil.copytree(tiny_checkpoint("tiny:gemma3", bases_root), tmp_path / "model"))
    ref, _ = trained(backbone(tmp_path, model=str(folder)), posts())
    weights = folder / "model.safetensors"
    stat, content = weights.stat(), bytearray(weights.read_bytes())
    content[-1000] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    model = backbone(tmp_path, model=str(folder))
    with pytest.raises(InputError, match=r"was trained on other weights of '.*model' .* than are there now .*: name"):
        model.logits("deu", ref, ["a"], (0,))
    forget_scores(tmp_path)
    with pytest.raises(InputError, match="was trained on other weights"):
        model.score("deu", ref, posts())
    assert trained(model, posts())[0] != ref


def test_a_tampered_adapter_is_refused(copy: tuple[Path, AdapterRef]) -> None:
    root, ref = copy
    flip(root / ref.path / "final-seed-0" / "adapter_model.safetensors")
    for ask in (
        lambda: backbone(root).score("deu", ref, posts()),
        lambda: backbone(root).logits("deu", ref, ["a"], (0,)),
    ):
        with pytest.raises(InputError, match="was changed after it was written"):
            ask()


def flip(file: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def change_note(root: Path, key: str, value: str) -> None:
    """Change what is noted of the finished adapter."""
    (note,) = (root / "finished").rglob("*.json")
    note.write_text(json.dumps(json.loads(note.read_text()) | {key: value}))


DAMAGED: dict[str, Callable[[Path, Path], object]] = {
    "adapter gone": lambda root, folder: shutil.rmtree(folder),
    "weights changed": lambda root, folder: flip(folder / "final-seed-0" / "adapter_model.safetensors"),
    "out-of-fold logits changed": lambda root, folder: flip(folder / "adapter.safetensors"),
    "meta changed": lambda root, folder: flip(folder / "meta.json"),
    "a model gone": lambda root, folder: shutil.rmtree(folder / "final-seed-0"),
    "a file too many": lambda root, folder: (folder / "more.json").write_text("{}"),
    "the note of another path": lambda root, folder: change_note(root, "path", "tiny/deu/0123456789abcdef"),
    "the note of other posts": lambda root, folder: change_note(root, "posts_fingerprint", "0" * 64),
    "the note of other settings": lambda root, folder: change_note(root, "config_fingerprint", "0" * 64),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_finished_adapter_that_was_damaged_or_removed_is_trained_again(
    copy: tuple[Path, AdapterRef], damage: str
) -> None:
    root, ref = copy
    DAMAGED[damage](root, root / ref.path)
    again, said = trained(backbone(root), posts())
    assert again == ref and folder_sha256(root / ref.path) == ref.sha256
    assert "is damaged or gone, so it is trained again" in said[0] and "deu fold 1 of 2: step" in " ".join(said)
    assert trained(backbone(root), posts())[1] == ["deu: trained before, nothing to do"]


def test_force_trains_a_finished_adapter_again(copy: tuple[Path, AdapterRef]) -> None:
    root, ref = copy
    said: list[str] = []
    again = backbone(root).train("deu", posts(), Progress(said.append), force=True)
    assert again == ref and sum(": step" in line for line in said) == 3 and "posts outside folds scored" in said[-1]
    with pytest.raises(KeyboardInterrupt):
        backbone(root).train("deu", posts(), Progress(measure=interrupt), force=True)
    # what was interrupted does not count as finished
    assert trained(backbone(root), posts())[1] != ["deu: trained before, nothing to do"]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_kept_logits_that_were_damaged_are_computed_again(copy: tuple[Path, AdapterRef]) -> None:
    root, ref = copy
    expected = backbone(root).score("deu", ref, posts())
    (kept,) = (root / "scored").rglob("*.logits")
    content = kept.read_bytes()
    for damaged in (bytes([content[0] ^ 1]) + content[1:], content[:-1] + b"\0", content[:20], b""):
        kept.write_bytes(damaged)
        said: list[str] = []
        found = backbone(root).score("deu", ref, posts(), Progress(said.append))
        pd.testing.assert_frame_equal(found, expected)
        assert "are damaged, so they are computed again" in said[0] and kept.read_bytes() == content


def test_progress_runs_over_all_folds_seeds_and_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polar_pipeline.backbones.base._ADVANCE_SECONDS", 0)
    seen: list[tuple[float, float, str]] = []
    happened: list[str] = []

    def advanced(*given: Any) -> None:
        seen.append(given)
        happened.append("advance")

    model = backbone(tmp_path, seeds=(0, 5), epochs=2)
    progress = Progress(measure=lambda *_: happened.append("step"), advance=advanced)
    model.train("deu", posts(), progress)
    assert happened[0] == "advance"
    tokens, scored = ([entry for entry in seen if entry[2] == unit] for unit in ("tokens", "posts"))
    dataset = LanguageDataset(posts(), ModelCache().get(settings(), tmp_path).base, settings(), "deu", 1)
    lengths = dataset.rows.lengths[dataset.in_folds]
    # a row is in the model of the other fold and in the final one, for two seeds and two epochs
    assert {total for _, total, _ in tokens} == {lengths.sum() * 2 * 2 * 2}
    done = [entry[0] for entry in tokens]
    assert done[0] == 0 and done[-1] == tokens[0][1] and done == sorted(done) and len(set(done)) > 12
    assert scored[-1] == (2 * 8, 2 * 8, "posts") and seen.index(scored[0]) > seen.index(tokens[-1])


def test_progress_of_a_resumed_training_begins_where_it_was(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "ref"
    assert processes.run(processes.train_language, root, out, "finished 2") == -9
    seen: list[float] = []
    backbone(root).train("deu", posts(), Progress(advance=lambda done, total, unit: seen.append(done / total)))
    assert seen[0] >= 0.4


CHANGED: dict[str, object] = {
    "name": "other", "model": "tiny:qwen3", "revision": "v2", "dtype": "bfloat16", "four_bit": True, "tuning": "full",
    "rank": 5, "alpha": 9, "dropout": 0.1, "target_modules": ("q_proj",), "learning_rate": 1e-3, "schedule": "cosine",
    "warm_up": 0.2, "weight_decay": 0.1, "clip": 2.0, "epochs": 2, "patience": 3, "max_length": 30,
    "token_budget": 200, "accumulate": 2, "loss": "focal", "focal_gamma": 1.0, "class_weights": "balanced",
    "synthetic": "warm_up", "synthetic_weight": 0.5, "final": "fold_average", "seeds": (1,), "scope": "pooled",
    "heads": "all",
}  # fmt: skip
COMPUTED: dict[str, object] = {
    "device": "auto", "threads": 2, "recompute": "always", "checkpoint_seconds": 1.0, "languages": ("deu",),
}  # fmt: skip


def test_the_fingerprint_is_of_the_settings_that_change_numbers() -> None:
    """And of nothing else of a profile: a backbone is given its own settings, the seed and the number of folds."""
    assert {*CHANGED, *COMPUTED, "kind"} == set(LoraSettings.model_fields)
    root = Path("unused")
    plain = backbone(root).config
    for name, value in CHANGED.items():
        assert backbone(root, **{name: value}).config != plain, name
    for name, value in COMPUTED.items():
        assert backbone(root, **{name: value}).config == plain, name
    for seed, folds in ((2, 2), (1, 3)):
        assert LoraBackbone(settings(), seed, folds, CARD, root, ModelCache()).config != plain


def test_an_adapter_that_was_saved_otherwise_than_trained_is_seen_when_it_is_read_back(
    finished: tuple[Path, AdapterRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hash is right, because it was written wrong; the next run does not assemble it of the same models."""
    files = AdaptedModel.files

    def wrong(slot: AdaptedModel) -> dict[str, bytes]:
        from safetensors.torch import load, save

        found = files(slot)
        state = load(found["adapter_model.safetensors"])
        state["base_model.model.score.weight"] = torch.zeros_like(state["base_model.model.score.weight"])
        return found | {"adapter_model.safetensors": save(state, metadata={"format": "pt"})}

    with monkeypatch.context() as patch:
        patch.setattr(AdaptedModel, "files", wrong)
        with pytest.raises(
            InputError, match=r"gives logits that differ by .* from those in training: it was not saved"
        ):
            trained(backbone(tmp_path), posts())
    assert trained(backbone(tmp_path), posts())[0] == finished[1]


DAMAGE = {
    "note cut": lambda folder: (folder / "model.json").write_bytes((folder / "model.json").read_bytes()[:-20]),
    "note empty": lambda folder: (folder / "model.json").write_bytes(b""),
    "note is a list": lambda folder: (folder / "model.json").write_bytes(b"[]"),
    "note gone": lambda folder: (folder / "model.json").unlink(),
    "a logit changed": lambda folder: (folder / "model.json").write_bytes(
        (folder / "model.json").read_bytes().replace(b'"logits":[', b'"logits":[1')
    ),
    "weights changed": lambda folder: (folder / "adapter_model.safetensors").write_bytes(
        (folder / "adapter_model.safetensors").read_bytes()[:-1] + b"\x01"
    ),
    "weights cut": lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"half"),
    "weights gone": lambda folder: (folder / "adapter_model.safetensors").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_model_that_was_damaged_before_its_language_is_done_is_trained_again(
    finished: tuple[Path, AdapterRef], tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(LoraBackbone, "_assemble", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trained(backbone(tmp_path), posts())
    (folder,) = (tmp_path / "work").glob("tiny/deu/*/fold-1-seed-0")
    DAMAGE[damage](folder)
    ref, said = trained(backbone(tmp_path), posts())
    assert ref == finished[1]
    assert any(
        "fold-1-seed-0 was damaged after it was written, so this model is trained again" in line for line in said
    )
    assert "deu fold 1 of 2: trained before" in said and "deu fold 2 of 2: trained before" not in said
    assert not list((tmp_path / "work").rglob("*.safetensors"))


def test_a_damaged_note_that_a_language_is_done_is_made_again(copy: tuple[Path, AdapterRef]) -> None:
    root, ref = copy
    (note,) = (root / "finished").rglob("*.json")
    note.write_text('{"path": ')
    again, said = trained(backbone(root), posts())
    assert again == ref and "is damaged, so its adapter is made again" in said[0]


def test_logits_that_are_not_numbers_are_refused_too(
    copy: tuple[Path, AdapterRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, ref = copy
    forget_scores(root)
    monkeypatch.setattr(
        "polar_pipeline.backbones.lora.final_models.score_tokens", lambda base, rows, *_: np.full(len(rows), np.nan)
    )
    with pytest.raises(InputError, match="differ by nan"):
        backbone(root).score("deu", ref, posts())


def test_no_folds(tmp_path: Path) -> None:
    given = posts(folds=0)
    done: list[tuple[float, float, str]] = []
    model = backbone(tmp_path)
    ref = model.train("deu", given, Progress(advance=lambda *how: done.append(how)))
    table = model.score("deu", ref, given)
    assert done[0][0] == 0 and {(now, unit) for now, total, unit in done if now == total} == {
        (float(done[0][1]), "tokens"),
        (8.0, "posts"),
    }
    assert table["id"].tolist() == given["id"][given["split"] != "train"].tolist()
    assert (table["fold"] == -1).all()


def test_seeds_are_members_and_their_mean_scores_new_texts(tmp_path: Path) -> None:
    given = posts()
    model = backbone(tmp_path, seeds=(0, 5))
    ref, _ = trained(model, given)
    table = model.score("deu", ref, given)
    assert table.groupby("seed").size().to_dict() == {0: len(given), 5: len(given)}
    halves = [table["logit"][table["seed"] == seed].to_numpy() for seed in (0, 5)]
    assert (halves[0] != halves[1]).all()
    rest = (given["fold"] < 0).to_numpy()
    mean = model.logits("deu", ref, given["text"][rest].tolist(), (0, 5))["label"]
    np.testing.assert_allclose(mean, (halves[0][rest] + halves[1][rest]) / 2, atol=1e-5)
    # a seed is what it is alone
    alone = scored(backbone(tmp_path / "alone"), given)
    np.testing.assert_allclose(halves[0], alone["logit"], atol=1e-6)


def test_fold_average_is_the_mean_of_the_fold_models(finished: tuple[Path, AdapterRef], tmp_path: Path) -> None:
    root, ref = finished
    given = posts()
    model = backbone(tmp_path, final="fold_average")
    averaged_ref, _ = trained(model, given)
    averaged, retrained = (
        model.score("deu", averaged_ref, given),
        backbone(root).score("deu", ref, given),
    )
    inside = (given["fold"] >= 0).to_numpy()
    np.testing.assert_array_equal(averaged["logit"][inside], retrained["logit"][inside])
    assert (averaged["logit"][~inside] != retrained["logit"][~inside]).all()
    _, meta = load_adapter(tmp_path, averaged_ref)
    assert meta["final"] == {"0": ["fold-0-seed-0", "fold-1-seed-0"]}
    # each fold's model by itself, from disk: fold 0's gives what it gave the rows that it held out
    slot = ModelCache().get(settings(), tmp_path)
    singles = []
    for fold in (0, 1):
        slot.load(tmp_path / averaged_ref.path / f"fold-{fold}-seed-0")
        logits = score_tokens(slot.base, slot.base.tokens(given["text"].tolist()), 128)
        held_out = (given["fold"] == fold).to_numpy()
        np.testing.assert_allclose(logits[held_out], averaged["logit"][held_out], atol=1e-5)
        singles.append(logits)
    np.testing.assert_allclose(np.mean(singles, axis=0)[~inside], averaged["logit"][~inside], atol=1e-5)


def test_a_language_that_it_does_not_speak_is_empty_and_loads_nothing(tmp_path: Path) -> None:
    bases = ModelCache()
    model = backbone(tmp_path, bases, languages=("eng",))
    assert model.speaks("eng") and not model.speaks("deu")
    ref, _ = trained(model, posts())
    table = model.score("deu", ref, posts())
    assert list(table.columns) == SCORE_COLUMNS and len(table) == 0
    assert bases.loads == 0


def test_an_adapter_is_safetensors_and_json(finished: tuple[Path, AdapterRef]) -> None:
    root, ref = finished
    files = [file for file in (root / ref.path).rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".safetensors", ".json"}
    tensors = load_numpy(root / ref.path / "adapter.safetensors")
    assert tensors["out_of_fold"].shape == (1, 16) and tensors["probe.final-seed-0"].shape == (4,)
    assert not list((root / "work").rglob("*.safetensors"))  # what it was made of is gone


MOMENTS = ["finished 1", "checkpoint 2", "writing 4", "scored", "closing"]


def test_a_language_that_is_killed_again_and_again_ends_as_one_that_is_not(
    finished: tuple[Path, AdapterRef], tmp_path: Path
) -> None:
    """After a model, in a step, while a file is written, after all models, and before the scores are kept."""
    root, out = tmp_path / "root", tmp_path / "ref"
    for moment in MOMENTS:
        assert processes.run(processes.train_language, root, out, moment) == -9, moment
        assert not out.exists()
    assert processes.run(processes.train_language, root, out, "never") == 0
    line, *said = out.read_text().splitlines()
    assert AdapterRef.model_validate_json(line) == finished[1]
    assert said[0] == "deu fold 1 of 2: trained before"  # the last kill came before the language was closed
    pd.testing.assert_frame_equal(
        backbone(root).score("deu", finished[1], posts()),
        backbone(finished[0]).score("deu", finished[1], posts()),
    )


def test_a_model_that_is_done_is_not_trained_again_after_a_kill(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "ref"
    assert processes.run(processes.train_language, root, out, "finished 2") == -9
    assert processes.run(processes.train_language, root, out, "never") == 0
    said = out.read_text().splitlines()[1:]
    assert said[:2] == ["deu fold 1 of 2: trained before", "deu fold 2 of 2: trained before"]
    assert not any("fold" in line and "step" in line for line in said)


@pytest.mark.parametrize("written", [0, 3, 6, 9])
def test_a_disk_that_fills_leaves_nothing_half_and_the_next_run_ends_well(
    finished: tuple[Path, AdapterRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    shutil.copytree(finished[0] / "bases", tmp_path / "bases")
    write, count = Path.write_bytes, 0

    def full(path: Path, content: bytes) -> int:
        nonlocal count
        count += 1
        if count > written:
            write(path, content[: len(content) // 2])
            raise OSError(28, "No space left on device", str(path))
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(
            InputError, match=r"cannot be written, its disk is full .*: free space there, or write to another disk"
        ):
            trained(backbone(tmp_path), posts())
    assert count == written + 1
    assert not [file for file in tmp_path.rglob(".*") if file.is_file()]
    ref, _ = trained(backbone(tmp_path), posts())
    assert ref == finished[1]
    assert folder_sha256(tmp_path / ref.path) == ref.sha256
