"""Scores that were made elsewhere: read from a file and compared with the posts, then a backbone like any other.

A language's logits are copied, so that a decision can be explained when the file has changed or gone.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef, load_adapter
from polar_pipeline.backbones.base import Backbone, Progress, real_posts, training_fingerprint
from polar_pipeline.corpus.folds import scored_posts
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.backbones import ImportedSettings
from polar_pipeline.storage.fingerprint import file_sha256, fingerprint, frame_fingerprint
from polar_pipeline.tables.table_file import read_table
from polar_pipeline.task.card import MAIN_HEAD, TaskCard

_POST = ["split", "id"]
_WHOLE = ("fold", "seed")  # columns of whole numbers
VERSION = 2  # raised when an adapter holds something else: older ones are then refused
_CERTAIN = 1e-7  # probabilities of 0 and 1, which float32 rounds to, become logits of -16 and 16


class ImportedBackbone(Backbone):
    """Scores of one backbone, any number of seeds, from a Parquet or CSV file."""

    def __init__(self, settings: ImportedSettings, card: TaskCard, root: Path) -> None:
        parameters = settings.model_dump(mode="json", exclude={"languages", "pooled"}) | {"version": VERSION}
        super().__init__(settings.name, parameters, card, root, settings.languages)
        self._settings = settings
        # a file that was moved holds the same scores
        self.config = fingerprint({name: value for name, value in self.parameters.items() if name != "path"})

    def train(self, language: str, posts: pd.DataFrame, progress: Progress, force: bool = False) -> AdapterRef:  # noqa: ARG002
        """Copy the language's logits. Raises InputError for a file that does not fit the posts, and names the rows."""
        path, whole = Path(self._settings.path), training_fingerprint(posts, self._card)
        posts = scored_posts(real_posts(posts))
        seeds: dict[str, list[int]] = {}  # by head
        logits: dict[str, Floats] = {}
        digest = ""
        if self.speaks(language):
            for head, rows in _heads(_read(path, self._settings, self._card), language, path):
                seeds[head], logits[head] = _aligned(rows, posts, language, path)
            digest = file_sha256(path)
        count = sum(values.size for values in logits.values())
        progress(f"{language}: {count} scores of {len(logits)} heads from {path}")
        meta = {"seeds": seeds, "file": path.name, "file_sha256": digest, "rows": frame_fingerprint(posts, _POST)}
        return self._save(language, whole, logits or {MAIN_HEAD: np.zeros((0, len(posts)))}, meta)

    def score(
        self,
        language: str,
        ref: AdapterRef,
        posts: pd.DataFrame,
        progress: Progress | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """The copied logits, one row per post and seed; no rows for a language that the backbone does not speak."""
        self._check(language, ref, training_fingerprint(posts, self._card))
        tensors, meta = load_adapter(self._root, ref)
        posts = scored_posts(real_posts(posts))
        if meta["rows"] != frame_fingerprint(posts, _POST):
            raise InputError(
                f"adapter {ref.path} is of other posts: materialize {self.name}_adapter for {ref.language} again."
            )
        heads = {head: dict(zip(seeds, tensors[head], strict=True)) for head, seeds in meta["seeds"].items()}
        return self._scores(language, posts, heads)

    def logits(self, language: str, ref: AdapterRef, texts: list[str], seeds: tuple[int, ...]) -> dict[str, Floats]:  # noqa: ARG002
        """Not possible: scores that came from a file say nothing of other posts. Raises InputError."""
        raise InputError(
            f"backbone {self.name!r} is imported, so new posts cannot be scored with it: "
            f"use a profile without it, or import scores of these posts as test posts."
        )


def _read(path: Path, settings: ImportedSettings, card: TaskCard) -> pd.DataFrame:
    """The file's rows of this backbone: head, seed, language, split, fold, id, logit.

    A file with a column for each target has a head of each; another one scores the label of the whole post.
    """
    if path.suffix not in {".parquet", ".csv"} or not path.is_file():
        raise InputError(
            f"scores {path} are not there or neither .parquet nor .csv: correct `path` of {settings.name}."
        )
    try:
        # a CSV as text, so that an id of 007 stays one
        table = pd.read_parquet(path) if path.suffix == ".parquet" else read_table(path).frame
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(
            f"scores {path} cannot be read ({' '.join(str(error).split())}): write the file again."
        ) from error
    if "backbone" in table:
        names = sorted(map(str, table["backbone"].unique()))
        wanted = settings.backbone or (names[0] if len(names) == 1 else None)
        if wanted not in names:
            named = ", ".join(names)
            raise InputError(f"scores {path} are of {named}: name one of them as `backbone` of {settings.name}.")
        table = table[table["backbone"] == wanted]
    value = next((name for name in ("logit", "probability") if name in table), "logit (or probability)")
    values = settings.columns or (value,)
    apart = bool(card.labels) and (bool(settings.columns) or not {value, "head"} & set(table.columns))
    if apart and settings.columns and len(settings.columns) != len(card.targets):
        raise InputError(
            f"`columns` of {settings.name} names {len(values)} columns, and the task has {len(card.targets)} labels: "
            f"name one for each, in the order of {', '.join(card.targets)}."
        )
    if apart:
        values = settings.columns or card.targets
    missing = [name for name in ("language", "split", "fold", "id", *values) if name not in table]
    if missing:
        raise InputError(f"scores {path} lack the columns {', '.join(missing)}: add them.")
    whole = {name: _numbers(table, name, path).astype(int) for name in _WHOLE if name in table}
    found = table[["language", "split", "id"]].astype(str).assign(**({"seed": 0} | whole))
    if apart:
        pairs = zip(card.targets, values, strict=True)
        return pd.concat([found.assign(head=name, logit=_numbers(table, column, path)) for name, column in pairs])
    # log-sum-exp, which of one column is the column itself
    numbers: Floats = np.logaddexp.reduce([_numbers(table, name, path) for name in values], axis=0)
    if values == ("probability",):
        clipped = np.clip(numbers, _CERTAIN, 1 - _CERTAIN)
        numbers = np.log(clipped) - np.log1p(-clipped)
    heads = table["head"].astype(str) if "head" in table else MAIN_HEAD
    return found.assign(head=heads, logit=numbers)


def _heads(table: pd.DataFrame, language: str, path: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each head of a model, and its rows of the language."""
    mine = table[table["language"] == language]
    if mine.empty:
        raise InputError(f"scores {path} have no row of {language}: leave it out of the backbone's `languages`.")
    yield from ((str(head), rows) for head, rows in mine.groupby("head", sort=True))


def _numbers(table: pd.DataFrame, column: str, path: Path) -> Floats:
    """A column as finite float64. Raises InputError that names the first value that cannot be used."""
    numbers: Floats = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    usable = np.isfinite(numbers)
    if column == "probability":
        usable &= (numbers >= 0) & (numbers <= 1)
    elif column in _WHOLE:
        usable &= numbers == np.floor(numbers)
    if not usable.all():
        row = int(np.argmin(usable))
        raise InputError(
            f"scores {path}: {int((~usable).sum())} values of {column} are not usable numbers, "
            f"first {table[column].iloc[row]!r} of id {table['id'].iloc[row]!r}: correct them."
        )
    return numbers


def _aligned(mine: pd.DataFrame, posts: pd.DataFrame, language: str, path: Path) -> tuple[list[int], Floats]:
    """Seeds, and logits (seeds, posts) in the order of the posts, of one head's scores."""
    doubled = mine[mine.duplicated(["seed", *_POST])]
    if len(doubled):
        row = doubled.iloc[0]
        raise InputError(
            f"scores {path} hold {len(doubled)} posts of {language} twice, first {row['id']!r} "
            f"({row['split']}, seed {row['seed']}): keep one."
        )
    keys = pd.MultiIndex.from_frame(posts[_POST])
    if "train" not in set(posts["split"]):  # no folds: what the file has of train is not looked at
        mine = mine[mine["split"] != "train"]
    extra = ~pd.MultiIndex.from_frame(mine[_POST]).isin(keys)
    if extra.any():
        raise InputError(
            f"scores {path} hold {int(extra.sum())} rows of {language} that are no posts, "
            f"first {mine['id'].to_numpy()[extra][0]!r}: remove them."
        )
    _refuse_seen(mine, posts, language, path)
    seeds = sorted(int(seed) for seed in mine["seed"].unique())
    logits = mine.pivot(index=_POST, columns="seed", values="logit").reindex(keys)[seeds].to_numpy(dtype=float)
    lacking = np.isnan(logits)
    if lacking.any():
        post, place = np.argwhere(lacking)[0]
        raise InputError(
            f"scores {path} lack {int(lacking.sum())} posts of {language}, first {posts['id'].iloc[post]!r} "
            f"({posts['split'].iloc[post]}, seed {seeds[place]}): add them, or use the posts that were scored."
        )
    return seeds, np.ascontiguousarray(logits.T)


def _refuse_seen(mine: pd.DataFrame, posts: pd.DataFrame, language: str, path: Path) -> None:
    """Posts in folds need scores of models that did not see them; which fold that was may differ from seed to seed."""
    held_out = pd.MultiIndex.from_frame(posts.loc[posts["fold"] >= 0, _POST])
    seen = mine.groupby(_POST)["fold"].min().reindex(held_out) < 0
    ids = seen[seen].index.get_level_values("id")
    if len(ids):
        raise InputError(
            f"scores {path} say fold -1 for {len(ids)} posts of {language} that are decided on, "
            f"first {str(ids[0])!r}: set folds.fit_on to train if dev was not scored out of fold, "
            f"or import out-of-fold scores."
        )
