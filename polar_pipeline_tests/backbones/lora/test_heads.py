"""`heads: all`: the label and its finer labels are learned together, and each group gives a score of its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peft
import pytest
import torch
import transformers
from safetensors.torch import load, save

from polar_pipeline.backbones.artifacts import AdapterRef, load_adapter
from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.backbone import NOT_IN_FINGERPRINT, LoraBackbone
from polar_pipeline.backbones.lora.base_model import BaseModel, score_tokens
from polar_pipeline.backbones.lora.dataset import LanguageDataset, TrainingTask
from polar_pipeline.backbones.lora.final_models import AdapterMismatch
from polar_pipeline.backbones.lora.loading import ModelCache, load_base
from polar_pipeline.backbones.lora.optimizer import finer_losses, row_losses, start_at_base_rates
from polar_pipeline.backbones.lora.pooled import PooledBackbone, tag
from polar_pipeline.backbones.lora.training import train_model
from polar_pipeline.backbones.lora.tunable import AdaptedModel, FineTunedModel
from polar_pipeline.errors import InputError
from polar_pipeline.pretrained.tiny import tiny_checkpoint
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.task.card import Auxiliary
from polar_pipeline_tests.backbones.lora import processes
from polar_pipeline_tests.backbones.lora.examples import CARD, fit, posts, settings

NAN = float("nan")
GROUPS = (2, 1)  # of finer labels, where a test makes its own
HEADS = ["label", "types", "manifestations"]
MANIFESTATIONS = list(CARD.auxiliary.manifestations)


def backbone(root: Path, **changes: object) -> LoraBackbone:
    return LoraBackbone(settings(**({"heads": "all"} | changes)), 1, 2, CARD, root, ModelCache())


def without_manifestations(given: pd.DataFrame) -> pd.DataFrame:
    return given.assign(**{name: pd.array([pd.NA] * len(given), dtype="Int8") for name in MANIFESTATIONS})


def by_head(scores: pd.DataFrame, seed: int = 0) -> dict[str, np.ndarray]:
    mine = scores[scores["seed"] == seed]
    return {str(head): rows["logit"].to_numpy() for head, rows in mine.groupby("head", sort=False)}


@pytest.fixture
def slot(bases_root: Path) -> AdaptedModel:
    """A place for an adapter in a tiny Gemma 3 with a label and three finer ones."""
    chosen = settings()
    return AdaptedModel(load_base(chosen, bases_root, groups=GROUPS), chosen)


def finer_fit(base: BaseModel, **changes: Any) -> TrainingTask:
    """The first finer label is there for half of the rows, the second for none, the third for all."""
    task = fit(base, **changes)
    places = np.arange(len(task.rows.labels))
    labels = [np.where(places % 4 < 2, task.rows.labels, NAN), np.full(len(places), NAN), places % 3 == 0]
    return task._replace(rows=task.rows._replace(finer=np.stack(labels, axis=1)))


def test_the_loss_is_the_mean_over_the_labels_that_a_row_has() -> None:
    logits = torch.tensor([[0.0, np.log(3)], [2.0, -1.0], [5.0, -7.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0], [NAN, 1.0], [NAN, NAN]])
    losses = finer_losses(logits, labels)
    expected = [(np.log(2) + np.log(4)) / 2, np.log1p(np.e), 0]
    np.testing.assert_allclose(losses.detach(), expected, rtol=1e-6)
    losses.sum().backward()
    assert logits.grad is not None
    gradients = [[(0.5 - 1) / 2, 0.75 / 2], [0, 1 / (1 + np.e) - 1], [0, 0]]
    np.testing.assert_allclose(logits.grad, gradients, rtol=1e-6)
    assert logits.grad[labels.isnan()].tolist() == [0, 0, 0]  # exactly


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_finer_labels_begin_at_their_share_of_the_rows(tuning: str, bases_root: Path) -> None:
    chosen = settings(model="tiny:xlm_roberta", tuning=tuning)
    base = load_base(chosen, bases_root, groups=GROUPS)
    tunable = (AdaptedModel if tuning == "lora" else FineTunedModel)(base, chosen)
    parameters = tunable.fresh(3)
    finer = np.array([[1, NAN, 0], [0, NAN, 0], [0, NAN, 0], [NAN, NAN, 0]], dtype=float)
    start_at_base_rates(base, parameters, finer)
    logits = base.logits(base.tokens(["a post", "another one"])).detach().numpy()
    expected = np.log([(1 + 1) / (2 + 1), 1.0, 1 / 5])
    np.testing.assert_allclose(logits[:, 1:], [expected] * 2, atol=1e-6)
    assert abs(logits[0, 0] - logits[1, 0]) > 1e-6  # the label's own weights are drawn


def test_a_head_without_biases_begins_at_0(slot: AdaptedModel) -> None:
    start_at_base_rates(slot.base, slot.fresh(3), np.ones((4, 3)))
    assert not slot.base.logits(slot.base.tokens(["a post"])).detach().numpy()[:, 1:].any()


def test_a_step_adds_it_to_the_loss_of_the_label(slot: AdaptedModel, tmp_path: Path) -> None:
    """Computed again from the head's outputs; what a row weighs holds for both."""
    measured: list[float] = []
    chosen = settings(token_budget=4096, learning_rate=1e-9, loss="focal")
    task = finer_fit(slot.base, watched=0)
    task = task._replace(weights=np.linspace(0.5, 2, len(task.weights)))
    train_model(
        slot, task, chosen, tmp_path / "checkpoint", Progress(None, lambda _, all: measured.extend(all.values()))
    )
    assert task.rows.finer is not None
    with torch.inference_mode():
        outputs = slot.base.logits(task.rows.tokens)
        assert outputs.shape == (12, 4)
        losses = row_losses(outputs[:, 0], torch.from_numpy(task.rows.labels).float(), chosen)
        losses += finer_losses(outputs[:, 1:], torch.from_numpy(task.rows.finer).float())
    assert measured[0] == pytest.approx(np.average(losses, weights=task.weights), abs=1e-5)


def test_a_label_that_no_row_has_moves_nothing(slot: AdaptedModel, tmp_path: Path) -> None:
    chosen = settings(epochs=2)
    task = finer_fit(slot.base)
    head = "base_model.model.score.weight"
    slot.fresh(task.random_seed)
    before = load(slot.files()["adapter_model.safetensors"])[head]
    train_model(slot, task, chosen, tmp_path / "checkpoint", Progress())
    after = load(slot.files()["adapter_model.safetensors"])[head]
    assert before.shape == (4, 64)
    assert (before != after).any(dim=1).tolist() == [True, True, False, True]


def test_scores_are_the_label_and_each_groups_log_sum_exp(slot: AdaptedModel) -> None:
    slot.fresh(3)
    rows = slot.base.tokens(["a", "some more text", "and this"])
    with torch.inference_mode():
        outputs = slot.base.logits(rows).double().numpy()
    expected = [outputs[:, 0], np.log(np.exp(outputs[:, 1:3]).sum(axis=1)), outputs[:, 3]]
    np.testing.assert_allclose(score_tokens(slot.base, rows, 128), expected, atol=1e-6)
    np.testing.assert_allclose(score_tokens(slot.base, rows, 4), expected, atol=1e-6)  # in several batches
    assert score_tokens(slot.base, [], 128).shape == (3, 0)


def test_training_ends_early_by_the_label_alone(slot: AdaptedModel, tmp_path: Path) -> None:
    measured: list[float] = []

    def listen(step: int, values: dict[str, float]) -> None:
        measured.extend(value for name, value in values.items() if name.endswith("dev_loss"))

    chosen = settings(epochs=8, patience=2, learning_rate=0.3, token_budget=512, warm_up=0)
    task = finer_fit(slot.base)
    train_model(slot, task, chosen, tmp_path / "checkpoint", Progress(None, listen))
    assert len(measured) < 8 and task.watch is not None
    logits = torch.from_numpy(score_tokens(slot.base, task.watch.tokens, 128)[0])
    labels = torch.from_numpy(task.watch.labels).double()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    assert float(loss) == pytest.approx(min(measured), abs=1e-6)


def test_rows_have_the_labels_of_the_card_in_its_order(bases_root: Path) -> None:
    given = posts()
    base = load_base(settings(), bases_root)
    groups = {name: tuple(columns) for name, columns in CARD.auxiliary.groups.items()}
    dataset = LanguageDataset(without_manifestations(given), base, settings(), "deu", 1, groups)
    finer = dataset.rows.finer
    assert finer is not None and finer.shape == (len(given), 11)
    fitted = (given["split"] == "train").to_numpy()
    np.testing.assert_array_equal(finer[fitted, :5], given.loc[fitted, list(CARD.auxiliary.types)].to_numpy(float))
    assert np.isnan(finer[:, 5:]).all() and np.isnan(finer[given["split"] == "test"]).all()
    assert dataset.learned_groups() == ["types"]
    assert LanguageDataset(given, base, settings(), "deu", 1, groups).learned_groups() == HEADS[1:]
    some = without_manifestations(given).where(given["fold"] != 0, given)  # the model of fold 0 sees none
    assert LanguageDataset(some, base, settings(), "deu", 1, groups).learned_groups() == ["types"]
    assert LanguageDataset(given, base, settings(), "deu", 1).rows.finer is None


def test_without_finer_labels_nothing_is_other_than_before(tmp_path: Path) -> None:
    """The fingerprint, which adapters from before have, and an adapter's tensors, whatever finer labels a card has."""
    model = backbone(tmp_path, heads="label")
    assert set(model.parameters) == {*LoraSettings.model_fields} - NOT_IN_FINGERPRINT | {"seed", "folds", "version"}
    other = CARD.model_copy(update={"auxiliary": Auxiliary(types=("political",))})
    configs = [
        LoraBackbone(settings(heads=heads), 1, 2, card, tmp_path, ModelCache()).config
        for heads in ("label", "all")
        for card in (CARD, other)
    ]
    assert configs[0] == configs[1] == model.config and len(set(configs)) == 3
    ref = model.train("deu", posts(), Progress())
    tensors, meta = load_adapter(tmp_path, ref)
    assert tensors["out_of_fold"].shape == (1, 16) and "groups" not in meta
    assert by_head(model.score("deu", ref, posts())).keys() == {"label"}
    assert model.logits("deu", ref, ["a"], (0,)).keys() == {"label"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AdapterRef]:
    """A root with one trained language."""
    root = tmp_path_factory.mktemp("finished")
    return root, backbone(root).train("deu", posts(), Progress())


def test_every_post_has_a_score_of_each_head(finished: tuple[Path, AdapterRef]) -> None:
    """Posts outside folds as new texts have, posts in folds as their fold's model gave them in training."""
    root, ref = finished
    given = posts()
    model = backbone(root)
    scores = model.score("deu", ref, given)
    heads = by_head(scores)
    assert list(heads) == HEADS and all(len(values) == len(given) for values in heads.values())
    outside = (given["fold"] < 0).to_numpy()
    new = model.logits("deu", ref, given["text"].tolist(), (0,))
    assert list(new) == HEADS
    tensors, _ = load_adapter(root, ref)
    for place, name in enumerate(HEADS):
        np.testing.assert_allclose(heads[name][outside], new[name][outside], atol=1e-5)
        np.testing.assert_array_equal(heads[name][~outside], tensors["out_of_fold"][0, place])
        assert np.abs(heads[name][~outside] - new[name][~outside]).min() > 1e-6  # another model's
    assert {name: values.shape for name, values in model.logits("deu", ref, [], (0,)).items()} == dict.fromkeys(
        HEADS, (0,)
    )
    probes = by_head(model.probes(ref, given))
    dev = (given["split"] == "dev").to_numpy()
    for name in HEADS:
        np.testing.assert_allclose(probes[name], heads[name][dev], atol=1e-5)
    said: list[str] = []
    assert backbone(root).train("deu", given, Progress(said.append)) == ref
    assert said == ["deu: trained before, nothing to do"]


def test_scores_that_were_lost_are_computed_again_from_disk(finished: tuple[Path, AdapterRef]) -> None:
    root, ref = finished
    before = backbone(root).score("deu", ref, posts())
    (kept,) = (root / "scored").rglob("*.logits")
    kept.unlink()
    pd.testing.assert_frame_equal(backbone(root).score("deu", ref, posts()), before)
    pd.testing.assert_frame_equal(backbone(root).score("deu", ref, posts()), before)  # as they are kept


def test_plain_peft_reads_it(finished: tuple[Path, AdapterRef]) -> None:
    root, ref = finished
    place = tiny_checkpoint("tiny:gemma3", root / "bases")
    kind = transformers.Gemma3TextForSequenceClassification
    base = kind.from_pretrained(place, num_labels=12, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, root / ref.path / "final-seed-0").eval()
    mine = backbone(root)
    for text in ("a post", "and a longer one"):
        tokens = ModelCache().get(settings(), root).base.tokenizer([text], return_tensors="pt")
        with torch.inference_mode():
            label, *finer = model(**tokens).logits[0].double().tolist()
        expected = [label, np.log(np.exp(finer[:5]).sum()), np.log(np.exp(finer[5:]).sum())]
        found = mine.logits("deu", ref, [text], (0,))
        np.testing.assert_allclose([found[name][0] for name in HEADS], expected, atol=1e-5)


def test_a_finer_head_that_was_saved_otherwise_than_trained_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = AdaptedModel.files

    def wrong(slot: AdaptedModel) -> dict[str, bytes]:
        found = files(slot)
        state = load(found["adapter_model.safetensors"])
        state["base_model.model.score.weight"][-1] = 3
        return found | {"adapter_model.safetensors": save(state, metadata={"format": "pt"})}

    monkeypatch.setattr(AdaptedModel, "files", wrong)
    with pytest.raises(AdapterMismatch, match="gives logits that differ by"):
        backbone(tmp_path).train("deu", posts(), Progress())


def test_a_language_without_a_group_has_no_score_of_it(tmp_path: Path) -> None:
    given = without_manifestations(posts())
    model = backbone(tmp_path)
    ref = model.train("deu", given, Progress())
    scores = model.score("deu", ref, given)
    assert list(by_head(scores)) == list(by_head(model.probes(ref, given))) == HEADS[:2]
    assert list(model.logits("deu", ref, ["a"], (0,))) == HEADS[:2]
    with pytest.raises(InputError, match="posts_fingerprint"):  # finer labels are posts that it was trained on
        model.score("deu", ref, posts())


VARIANTS: dict[str, dict[str, object]] = {
    "seeds and fold_average": {"seeds": (0, 5), "final": "fold_average"},
    "full": {"model": "tiny:xlm_roberta", "tuning": "full", "recompute": "auto"},
    "encoder": {"model": "tiny:xlm_roberta", "recompute": "auto", "dropout": 0.1},
    "bfloat16": {"dtype": "bfloat16"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_are_the_same_for_new_texts(tmp_path: Path, variant: str) -> None:
    given = posts()
    model = backbone(tmp_path, **VARIANTS[variant])
    seeds = model.settings.seeds
    ref = model.train("deu", given, Progress())
    scores = [by_head(model.score("deu", ref, given), seed) for seed in seeds]
    outside = (given["fold"] < 0).to_numpy()
    new = model.logits("deu", ref, given.loc[outside, "text"].tolist(), seeds)
    for name in HEADS:
        expected = np.mean([heads[name][outside] for heads in scores], axis=0)
        np.testing.assert_allclose(new[name], expected, atol=1e-5)


def test_transformers_reads_a_model_that_was_fine_tuned_whole(tmp_path: Path) -> None:
    model = backbone(tmp_path, model="tiny:xlm_roberta", tuning="full")
    ref = model.train("deu", posts(), Progress())
    own = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / ref.path / "final-seed-0").eval()
    tokens = model._models.get(model.settings, tmp_path, (5, 6)).base.tokenizer(["a post"], return_tensors="pt")
    with torch.inference_mode():
        outputs = own(**tokens).logits[0].double()
    found = model.logits("deu", ref, ["a post"], (0,))
    expected = [outputs[0], outputs[1:6].logsumexp(0), outputs[6:].logsumexp(0)]
    np.testing.assert_allclose([found[name][0] for name in HEADS], expected, atol=1e-5)


def test_a_language_that_is_killed_ends_as_one_that_is_not(finished: tuple[Path, AdapterRef], tmp_path: Path) -> None:
    root, out, all_heads = tmp_path / "root", tmp_path / "ref", {"heads": "all"}
    for moment in ("checkpoint 2", "finished 2", "scored"):
        assert processes.run(processes.train_language, root, out, moment, all_heads) == -9, moment
    assert processes.run(processes.train_language, root, out, "never", all_heads) == 0
    assert AdapterRef.model_validate_json(out.read_text().splitlines()[0]) == finished[1]
    scores = [backbone(place).score("deu", finished[1], posts()) for place in (root, finished[0])]
    pd.testing.assert_frame_equal(*scores)


def test_a_base_has_as_many_outputs_as_are_asked_for(tmp_path: Path) -> None:
    bases = ModelCache()
    plain, all_heads = bases.get(settings(), tmp_path), bases.get(settings(), tmp_path, (5, 6))
    assert [len(one.base.model.score.weight) for one in (plain, all_heads)] == [1, 12]
    assert bases.get(settings(), tmp_path, (5, 6)) is all_heads and bases.get(settings(), tmp_path) is plain
    assert bases.loads == 2 and bases.identity(settings(), tmp_path, (5, 6)) == plain.base.identity


def pooled(root: Path, **changes: object) -> PooledBackbone:
    chosen = settings(**({"heads": "all", "scope": "pooled", "token_budget": 512} | changes))
    return PooledBackbone(chosen, 1, 2, CARD, root, ModelCache())


def test_a_pooled_head_scores_languages_without_its_labels_too(tmp_path: Path) -> None:
    """It knows them from the other language. Each language has the out-of-fold logits of its own posts."""
    given = {"deu": posts(), "eng": without_manifestations(posts(train=12))}
    model = pooled(tmp_path)
    whole = model.train_all(given, Progress())
    for code, table in given.items():
        ref = model.share(code, table, whole, Progress())
        heads = by_head(model.score(code, ref, table))
        assert list(heads) == list(by_head(model.probes(ref, table))) == HEADS
        outside = (table["fold"] < 0).to_numpy()
        new = model.logits(code, ref, table.loc[outside, "text"].tolist(), (0,))
        for name in HEADS:
            assert len(heads[name]) == len(table) and heads[name].std() > 0
            np.testing.assert_allclose(heads[name][outside], new[name], atol=1e-5)
    # the first fold's model, trained by hand
    tunable = model._models.get(model.settings, tmp_path, (5, 6))
    texts = [tag(code, text) for code, table in given.items() for text in table["text"]]
    together = pd.concat(given.values(), ignore_index=True).assign(text=texts)
    groups = {name: tuple(columns) for name, columns in CARD.auxiliary.groups.items()}
    task = LanguageDataset(together, tunable.base, model.settings, "all", 1, groups).models()[0]
    train_model(tunable, task, model.settings, tmp_path / "none", Progress())
    held_out = (given["eng"]["fold"] == 0).to_numpy()
    rows = tunable.base.tokens([tag("eng", text) for text in given["eng"].loc[held_out, "text"]])
    for name, expected in zip(HEADS, score_tokens(tunable.base, rows, 512), strict=True):
        np.testing.assert_allclose(heads[name][held_out], expected, atol=1e-5)


def test_a_family_that_lacks_a_group_leaves_it_out(tmp_path: Path) -> None:
    given = {"deu": posts(train=8), "tel": without_manifestations(posts(train=8))}
    model = pooled(tmp_path, scope="family")
    whole = model.train_all(given, Progress())
    for code, expected in (("deu", HEADS), ("tel", HEADS[:2])):
        ref = model.share(code, given[code], whole, Progress())
        assert list(by_head(model.score(code, ref, given[code]))) == expected
        assert list(model.logits(code, ref, ["a"], (0,))) == expected
