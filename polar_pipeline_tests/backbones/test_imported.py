"""Imported scores: every file that fits the posts gives the same table; one that does not is named with its fault."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.backbones.base import SCORE_COLUMNS, Progress
from polar_pipeline.backbones.imported import ImportedBackbone
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import ImportedSettings
from polar_pipeline_tests.corpus.tables import CARD, posts_of

Change = Callable[[pd.DataFrame], pd.DataFrame]


def make_posts() -> pd.DataFrame:
    """Train and dev are in folds; an id may come once in every split."""
    rows = [(f"x_{i}", f"post {i}", i % 2, "train") for i in range(6)]
    rows += [(f"x_{i}", f"dev post {i}", i % 2, "dev") for i in range(2)]
    posts = posts_of([*rows, *((f"t_{i}", f"test post {i}", None, "test") for i in range(4))])
    return posts.assign(fold=pd.array([0, 1, 2, 0, 1, 2, 0, 1, -1, -1, -1, -1], dtype="Int8"))


POSTS = make_posts()


def make_file(seeds: int = 2, language: str = "swa", name: str = "big") -> pd.DataFrame:
    tables = [
        POSTS[["split", "fold", "id"]].assign(backbone=name, seed=seed, language=language) for seed in range(seeds)
    ]
    table = pd.concat(tables, ignore_index=True)
    return table.assign(logit=np.random.default_rng(seeds).normal(scale=3, size=len(table)))


def as_probability(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="logit").assign(probability=expit(table["logit"].to_numpy()))


def written(table: pd.DataFrame, path: Path) -> Path:
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return path


def backbone(
    path: Path, wanted: str | None = None, languages: tuple[str, ...] | None = None, columns: tuple[str, ...] = ()
) -> ImportedBackbone:
    settings = ImportedSettings(
        name="mine", kind="imported", path=str(path), backbone=wanted, languages=languages or "all", columns=columns
    )
    return ImportedBackbone(settings, CARD, path.parent / "adapters")


def trained(model: ImportedBackbone) -> AdapterRef:
    return model.train("swa", POSTS, Progress())


def scored(model: ImportedBackbone) -> pd.DataFrame:
    return model.score("swa", trained(model), POSTS)


def assert_scores(found: pd.DataFrame, table: pd.DataFrame, tolerance: float = 0.0) -> None:
    """`found` is `table`'s scores under the profile's name: seed by seed, in the order of the posts."""
    assert list(found.columns) == SCORE_COLUMNS
    assert set(found["backbone"]) == {"mine"} and set(found["language"]) == {"swa"}
    for seed, mine in found.groupby("seed"):
        assert mine[["split", "id", "fold"]].to_numpy().tolist() == POSTS[["split", "id", "fold"]].to_numpy().tolist()
        expected = table[table["seed"] == seed].set_index(["split", "id"])["logit"]
        keys = pd.MultiIndex.from_frame(mine[["split", "id"]])
        np.testing.assert_allclose(mine["logit"].to_numpy(), expected[keys].to_numpy(), atol=tolerance, rtol=0)
    assert set(found["seed"]) == set(table["seed"])


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("shape", [lambda table: table, as_probability], ids=["logit", "probability"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_every_way_to_write_the_scores_gives_the_same_table(
    suffix: str, shape: Change, seeds: int, tmp_path: Path
) -> None:
    table = make_file(seeds)
    shuffled = pd.concat([table, make_file(seeds, "deu")]).sample(frac=1, random_state=0)
    path = written(shape(shuffled), tmp_path / f"scores{suffix}")
    assert_scores(scored(backbone(path)), table, 1e-6)


def test_seed_and_backbone_may_be_left_out(tmp_path: Path) -> None:
    table = make_file(1)
    path = written(table.drop(columns=["seed", "backbone"]), tmp_path / "scores.parquet")
    assert_scores(scored(backbone(path)), table)


def test_certain_probabilities_are_finite_and_keep_their_order(tmp_path: Path) -> None:
    values = np.linspace(0, 1, len(POSTS))
    table = make_file(1).drop(columns="logit").assign(probability=values)
    logits = scored(backbone(written(table, tmp_path / "scores.csv")))["logit"].to_numpy()
    assert np.isfinite(logits).all() and (np.diff(logits) > 0).all()
    assert logits[0] == pytest.approx(-logits[-1]) and logits[-1] > 15


@pytest.mark.parametrize("first", ["007", "NA", "1e3"])
def test_ids_in_csv_are_texts(first: str, tmp_path: Path) -> None:
    """As in the release's own files, where nothing is interpreted."""
    posts = POSTS.assign(id=pd.array([first, *map(str, range(100, 111))], dtype="str"))
    model = backbone(written(posts[["split", "fold", "id"]].assign(language="swa", logit=1.5), tmp_path / "scores.csv"))
    scores = model.score("swa", model.train("swa", posts, Progress()), posts)
    assert scores["id"].tolist() == posts["id"].tolist()


def test_of_several_backbones_one_is_named(tmp_path: Path) -> None:
    small = make_file(1, name="small")
    path = written(pd.concat([make_file(), small]), tmp_path / "scores.parquet")
    assert_scores(scored(backbone(path, "small")), small)
    for wanted in (None, "huge"):
        with pytest.raises(
            InputError, match=r"scores\.parquet are of big, small: name one of them as `backbone` of mine"
        ):
            trained(backbone(path, wanted))


FINE = ("political", "racial/ethnic")


def make_fine_file() -> pd.DataFrame:
    """Two fine labels in place of one logit; the first is far beyond where exp overflows."""
    table = make_file(1).drop(columns="logit")
    return table.assign(**{FINE[0]: np.linspace(-2000, 2000, len(table)), FINE[1]: np.linspace(1, -1, len(table))})


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_each_head_of_a_scores_table_of_our_own_is_a_head_again(suffix: str, tmp_path: Path) -> None:
    heads = {"label": make_file(2), "types": make_file(3).query("seed < 2")}
    table = pd.concat([rows.assign(head=head) for head, rows in heads.items()], ignore_index=True)
    found = scored(backbone(written(table.sample(frac=1, random_state=1), tmp_path / f"scores{suffix}")))
    assert list(found["head"].unique()) == ["label", "types"]
    for head, rows in heads.items():
        assert_scores(found[found["head"] == head], rows, 1e-12)
    again = scored(backbone(written(found, tmp_path / f"again{suffix}")))
    pd.testing.assert_frame_equal(again, found)


def test_a_head_that_lacks_posts_is_refused(tmp_path: Path) -> None:
    table = pd.concat([make_file(1).assign(head=head) for head in ("label", "types")], ignore_index=True)
    with pytest.raises(InputError, match="lack 1 posts of swa, first 't_3'"):
        trained(backbone(written(table.iloc[:-1], tmp_path / "scores.csv")))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_score_of_several_columns_is_their_log_sum_exp(suffix: str, tmp_path: Path) -> None:
    table = make_fine_file()
    path = written(table, tmp_path / f"scores{suffix}")
    one, two = (table[name].to_numpy() for name in FINE)
    larger = np.maximum(one, two)
    expected = larger + np.log(np.exp(one - larger) + np.exp(two - larger))
    assert_scores(scored(backbone(path, columns=FINE)), table.assign(logit=expected), 1e-6)
    assert_scores(scored(backbone(path, columns=FINE[1:])), table.assign(logit=two), 1e-6)


def test_columns_go_before_a_logit_that_is_there_too(tmp_path: Path) -> None:
    path = written(make_fine_file().assign(logit=np.nan), tmp_path / "scores.parquet")
    assert np.isfinite(scored(backbone(path, columns=FINE))["logit"]).all()


@pytest.mark.parametrize("value", [None, np.inf, "high"])
def test_a_fault_in_one_of_several_columns_names_it(value: object, tmp_path: Path) -> None:
    path = written(spoilt("racial/ethnic", value)(make_fine_file()).astype({"racial/ethnic": str}), tmp_path / "s.csv")
    with pytest.raises(InputError, match=r"s\.csv: 1 values of racial/ethnic are not usable numbers, first .*'x_3'"):
        trained(backbone(path, columns=FINE))
    with pytest.raises(InputError, match=r"s\.csv lack the columns religious: add them"):
        trained(backbone(path, columns=(*FINE, "religious")))


def test_a_column_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="columns should differ, these do not: a, a"):
        ImportedSettings(name="mine", kind="imported", path="x.csv", columns=("a", "a"))


def spoilt(column: str, value: object, row: int = 3) -> Change:
    """One field is another; the fourth row is post x_3 of train in the first seed."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        fields = table[column].astype(object)
        fields.iloc[row] = value
        return table.assign(**{column: fields})

    return change


FAULTS: dict[str, tuple[Change, str]] = {
    "missing column": (lambda table: table.drop(columns=["fold", "id"]), "lack the columns fold, id: add them"),
    "no scores": (lambda table: table.drop(columns="logit"), r"lack the columns logit \(or probability\)"),
    "NaN": (spoilt("logit", None), "1 values of logit are not usable numbers.*'x_3'"),
    "infinite": (spoilt("logit", np.inf), "1 values of logit are not usable numbers.*'x_3'"),
    "text": (spoilt("logit", "high"), "1 values of logit are not usable numbers, first 'high' of id 'x_3'"),
    "text as fold": (spoilt("fold", "none"), "fold.*none"),
    "text as seed": (spoilt("seed", "first"), "seed.*first"),
    "no fold": (spoilt("fold", None), "fold"),
    "no seed": (spoilt("seed", None), "seed"),
    "above 1": (lambda t: spoilt("probability", 1.5)(as_probability(t)), r"1 values of probability.*1\.5.*'x_3'"),
    "below 0": (lambda t: spoilt("probability", -0.1)(as_probability(t)), r"1 values of probability.*-0\.1.*'x_3'"),
    "doubled id": (
        lambda table: pd.concat([table, table.iloc[[3]]]),
        r"1 posts of swa twice, first 'x_3' \(train, seed 0\)",
    ),
    "extra id": (spoilt("id", "y_9"), "1 rows of swa that are no posts, first 'y_9'"),
    "missing post": (lambda table: table.drop(index=9), r"lack 1 posts of swa, first 't_1' \(test, seed 0\)"),
    "missing in one seed": (
        lambda table: table.drop(index=12 + 3),
        r"lack 1 posts of swa, first 'x_3' \(train, seed 1\)",
    ),
    "no such language": (lambda table: table.assign(language="deu"), "no row of swa: leave it out of"),
    "seen": (spoilt("fold", -1, row=12 + 3), "fold -1 for 1 posts of swa that are decided on, first 'x_3'"),
}


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_does_not_fit_is_refused_by_name_and_fault(fault: str, suffix: str, tmp_path: Path) -> None:
    spoil, message = FAULTS[fault]
    table = spoil(make_file())
    if suffix == ".parquet":  # whose columns have one type each
        mixed = [name for name in table if any(isinstance(value, str) for value in table[name])]
        table = table.astype(dict.fromkeys(mixed, str))
    path = written(table, tmp_path / f"scores{suffix}")
    with pytest.raises(InputError, match=message) as caught:
        trained(backbone(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "adapters").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.parquet", None, "are not there or neither"),
        ("scores.txt", b"id,logit\n", "neither .parquet nor .csv"),
        ("broken.parquet", b"PAR1 but no table", "cannot be read"),
        ("empty.csv", b"", "is empty"),
        ("ragged.csv", b"id,logit\nx_0,1\nx_1,1,2,3\n", "fields where the header has"),
        ("binary.csv", b"id,logit\n\xff\xfe,1\n" + "Größenwahn für müde Bären,1\n".encode() * 9, "not UTF-8"),
    ],
)
@pytest.mark.parametrize("languages", [("swa",), ("deu",)], ids=["spoken", "not spoken"])
def test_no_table_at_all_is_one_sentence(
    name: str, content: bytes | None, message: str, languages: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    try:
        trained(backbone(path, languages=languages))
    except InputError as error:
        assert message in str(error) and str(path) in str(error) and "\n" not in str(error)
    else:
        assert languages == ("deu",)  # nothing of the file is needed


def test_folds_may_differ_from_the_posts_as_long_as_none_was_seen(tmp_path: Path) -> None:
    table = make_file()
    others = table.assign(fold=(table["fold"] + table["seed"]).where(table["fold"] >= 0, -1))
    assert_scores(scored(backbone(written(others, tmp_path / "scores.csv"))), table, 1e-12)


def test_a_language_that_is_left_out_has_an_empty_table(tmp_path: Path) -> None:
    model = backbone(written(make_file(language="deu"), tmp_path / "scores.parquet"), languages=("deu",))
    assert model.speaks("deu") and not model.speaks("swa")
    scores = scored(model)
    assert list(scores.columns) == SCORE_COLUMNS and scores.empty


def test_the_copy_scores_when_the_file_is_gone(tmp_path: Path) -> None:
    table = make_file()
    path = written(table, tmp_path / "scores.parquet")
    model = backbone(path)
    ref = trained(model)
    path.unlink()
    assert_scores(model.score("swa", ref, POSTS), table)


def test_other_posts_settings_and_new_texts_are_refused(tmp_path: Path) -> None:
    path = written(make_file(), tmp_path / "scores.parquet")
    model = backbone(path)
    ref = trained(model)
    with pytest.raises(InputError, match="is of other posts: materialize mine_adapter for swa again"):
        model.score("swa", ref, POSTS.iloc[[*range(8), 9, 8, 10, 11]])  # test in another order
    with pytest.raises(InputError, match="posts_fingerprint"):
        model.score("swa", ref, POSTS.assign(text=POSTS["text"] + "!"))
    with pytest.raises(InputError, match="config_fingerprint"):
        backbone(path, "big").score("swa", ref, POSTS)
    with pytest.raises(InputError, match="'mine' is imported, so new posts cannot be scored"):
        model.logits("swa", ref, ["a new post"], (0,))
