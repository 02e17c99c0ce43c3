"""The pipeline from Python, for notebooks: fit a frame of labelled posts, predict new ones, see the report.

It follows scikit-learn where that fits. The code underneath is that of `polar init`, `polar run` and `polar predict`:
what was fitted here can be opened with `polar ui`, and what `polar run` made can be loaded here. Dagster runs a fit;
nothing of it is needed to predict.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.files import FileFormat
from polar_pipeline.storage.files import plain_name, write_atomic
from polar_pipeline.storage.home import Home

if TYPE_CHECKING:
    from polar_pipeline.commands.predict import Scorer
    from polar_pipeline.decision.record import Decisions, Estimate
    from polar_pipeline.defs.project import Project

_TYPE = "labels.json"  # beside the posts: the type of the labels
_FRAMES = "frames"  # in the home: the posts, card and profile of each fit
_ROLES = ("text", "label", "language", "id")


class PolarClassifier:
    """A classifier of posts whose models and decisions are in a home folder.

    `backbones` is a bundled profile whose backbones are trained, such as `cpu` or `laptop`, or a profile file of one's
    own; `name` is that of the results in the home, and fitting again under it replaces them.
    """

    def __init__(self, home: str | Path, name: str = "classifier", backbones: str = "cpu") -> None:
        self.home, self.name, self.backbones = Path(home).expanduser().resolve(), name, backbones
        self._project: Project | None = None
        self._scorers: dict[str, tuple[Decisions, Scorer]] = {}

    @classmethod
    def load(cls, home: str | Path, name: str = "classifier") -> "PolarClassifier":
        """What was fitted, or made by `polar run`, in this home under this name. Raises InputError if nothing was."""
        from polar_pipeline.defs.project import Project

        found = cls(home, name)
        found._project = Project.of_results(Home(found.home), name)
        return found

    def fit(
        self,
        frame: pd.DataFrame,
        *,
        text: str,
        label: str | Sequence[str],
        language: str,
        id: str | None = None,
        positive: object | None = None,
        processes: int | None = None,
    ) -> "PolarClassifier":
        """Train, decide and report on the posts of a frame; rows without a label are predicted.

        `text`, `label` and `id` are columns. A column of two words makes a binary task, of which `positive` is the word
        that is to be found; more make a multiclass one, and a list of 0/1 columns a multilabel one. `language` is a
        column of codes, or the code of all posts. Raises InputError that says what is wrong with the frame.
        """
        from polar_pipeline.commands.run import run_pipeline

        project = self._write(frame, text, label, language, id, positive)
        with _script_left_out():
            code = run_pipeline(project, project.codes, processes, force=False)
        if code:
            raise InputError(f"not all languages of {self.name!r} could be made: the reasons are above.")
        self._project, self._scorers = project, {}
        return self

    @property
    def classes_(self) -> "np.typing.NDArray[Any]":
        """What `predict` answers, in the order of the columns of `predict_proba`; of a multilabel task, its labels."""
        card = self._made().card
        if card.kind == "binary":
            return self._typed([card.label.word(0), card.label.word(1)])
        names = card.targets if card.kind == "multilabel" else [card.class_word(at) for at in range(len(card.labels))]
        return self._typed(list(names)) if card.kind == "multiclass" else np.array(list(names), dtype=object)

    def predict(self, texts: Sequence[str], language: str | None = None) -> "np.typing.NDArray[Any]":
        """The answer to each text (texts,), or of a multilabel task 0/1 (texts, labels).

        `language` is the code of the texts, needed where several were fitted.
        """
        table = self._answers(texts, language)
        given = table["prediction"].to_numpy().reshape(len(self._made().card.targets), -1).T
        kind = self._made().card.kind
        if kind == "multilabel":
            return given.astype(int)
        places = given[:, 0] if kind == "binary" else given.argmax(axis=1)
        answers: np.typing.NDArray[Any] = self.classes_[places.astype(int)]
        return answers

    def predict_proba(self, texts: Sequence[str], language: str | None = None) -> Floats:
        """Calibrated probabilities (texts, classes); of exclusive classes they sum to 1.

        `predict` need not give the likeliest class: thresholds and weights of classes are chosen for the metric.
        """
        card = self._made().card
        table = self._answers(texts, language)
        found: Floats = table["probability"].to_numpy(dtype=float).reshape(len(card.targets), -1).T
        if card.kind == "binary":
            return np.column_stack([1 - found[:, 0], found[:, 0]])
        return found / np.maximum(found.sum(axis=1, keepdims=True), 1e-12) if card.kind == "multiclass" else found

    def estimates(self) -> "dict[str, Estimate]":
        """The out-of-fold figure of each language with its 95% interval, by the task's metric."""
        project = self._made()
        return {code: self._decisions(code).out_of_fold for code in sorted(project.codes)}

    def report(self) -> Path:
        """The page of evidence. Raises InputError if it was not made."""
        path = self._made().results.report
        if not path.is_file():
            raise InputError(f"{path} does not exist: fit again, or use `polar run --profile {self._made().source}`.")
        return path

    def label_errors(self, language: str | None = None) -> pd.DataFrame:
        """The posts whose labels are doubtful, most doubtful first, with the label that is suggested."""
        project = self._made()
        return pd.read_csv(project.results.label_errors(self._language(language)), dtype={"id": str})

    def _typed(self, words: list[str]) -> "np.typing.NDArray[Any]":
        """Words of labels as values of the type that they were fitted with; whole numbers if nothing says it."""
        record = self.home / _FRAMES / plain_name(self.name) / _TYPE
        kind = json.loads(record.read_text())["type"] if record.is_file() else ""
        if kind == "bool":
            return np.array([word.casefold() == "true" for word in words])
        return np.array(words, dtype=object) if kind == "str" else _plain(words)

    def _made(self) -> "Project":
        if self._project is None:
            raise InputError("nothing is fitted yet: use `fit`, or `PolarClassifier.load`.")
        return self._project

    def _language(self, code: str | None) -> str:
        codes = self._made().codes
        if code is None and len(codes) > 1:
            raise InputError(f"several languages were fitted: give `language`, one of {', '.join(sorted(codes))}.")
        return codes[0] if code is None else self._made().check_languages((code,))[0]

    def _decisions(self, code: str) -> "Decisions":
        from polar_pipeline.defs.lineage import Lineage

        lineage = Lineage(self._made())
        lineage.require_current("thresholds", code)
        found: Decisions = lineage.read("thresholds", code)
        return found

    def _answers(self, texts: Sequence[str], language: str | None) -> pd.DataFrame:
        """The table of `predict_new_targets` of these texts."""
        from polar_pipeline.commands.predict import new_scorer
        from polar_pipeline.corpus.text import is_blank
        from polar_pipeline.decision.predictions import predict_new_targets

        if isinstance(texts, str):
            raise InputError("`texts` is one text: give a list of texts.")
        given = list(texts)
        for place, text in enumerate(given):
            if not isinstance(text, str) or is_blank(text):
                raise InputError(f"text {place} is {str(text)[:40]!r}: each should be a text that is not empty.")
        code = self._language(language)
        if code not in self._scorers:
            decisions = self._decisions(code)
            self._scorers[code] = decisions, new_scorer(self._made(), decisions)
        decisions, score = self._scorers[code]
        return predict_new_targets(decisions, score(given), len(given))

    def _write(
        self,
        frame: pd.DataFrame,
        text: str,
        label: str | Sequence[str],
        language: str,
        own: str | None,
        positive: object | None,
    ) -> "Project":
        """The posts as a file with a task card and a profile, as `polar init` writes them."""
        from polar_pipeline.commands.init import Given, understand
        from polar_pipeline.commands.init_files import card_yaml, profile_yaml
        from polar_pipeline.defs.project import Project

        labels = (label,) if isinstance(label, str) else tuple(label)
        spoken = language if language in frame else None
        wanted = [text, *labels, *(name for name in (spoken, own) if name)]
        if missing := [name for name in wanted if name not in frame]:
            raise InputError(
                f"the frame has no column `{missing[0]}`: it has {', '.join(map(str, frame.columns[:12]))}."
            )
        folder = self.home / _FRAMES / plain_name(self.name)
        posts = frame[wanted].reset_index(drop=True)
        posts = posts.assign(**{name: posts[name].map(_cell) for name in labels})
        data, card = folder / "posts.parquet", folder / f"{self.name}.card.yaml"
        write_atomic(data, posts.astype({text: "str"}).to_parquet(index=False))
        write_atomic(folder / _TYPE, json.dumps({"type": _type_of(frame[labels[0]])}).encode())
        given = Given(
            text=text,
            labels=labels,
            id=own,
            language=None if spoken else language,
            positive=None if positive is None else _cell(positive),
            form=FileFormat(),
        )
        found = understand(data, given, spoken)
        profile = folder / f"{self.name}.yaml"
        write_atomic(card, card_yaml(found, self.name).encode())
        write_atomic(profile, profile_yaml(found, card, folder, self.backbones).encode())
        return Project.load(str(profile), {**os.environ, "POLAR_HOME": str(self.home)})


@contextmanager
def _script_left_out() -> Iterator[None]:
    """Workers are started without the running script, which may have no `if __name__ == "__main__"` around a fit."""
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    try:
        main.__spec__ = None
        if "__file__" in kept:
            del main.__file__
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)


def _type_of(column: "pd.Series[Any]") -> str:
    """What kind of values labels are: bool, number or str."""
    if pd.api.types.is_bool_dtype(column):
        return "bool"
    return "number" if pd.api.types.is_numeric_dtype(column) else "str"


def _cell(value: object) -> str:
    """A label as a file has it; a missing one is empty."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _plain(words: list[str]) -> "np.typing.NDArray[Any]":
    """Words as an array, of numbers where all of them are whole numbers."""
    try:
        numbers = [int(word) for word in words]
    except ValueError:
        return np.array(words, dtype=object)
    return np.array(numbers)
