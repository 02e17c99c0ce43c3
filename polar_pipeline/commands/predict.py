"""`polar predict`: a language's decision applied to a file of new posts, each judged on its own."""

from pathlib import Path

import click
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.backbones.factory import make_backbone
from polar_pipeline.corpus.rows import Rows, read_rows
from polar_pipeline.decision.predictions import csv_bytes, predict_new
from polar_pipeline.decision.record import Decision
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.record import read_record


def predict_file(project: Project, code: str, path: Path, output: Path | None) -> int:
    """Write id, label, probability, margin and review of the posts in the CSV at `path`. Returns the exit code."""
    decision = _decision(project, code)
    posts = _posts(path)
    judged = predict_new(decision, _logits(project, decision, posts["text"].tolist()))
    label = project.card.label.column
    table = pd.concat([posts[["id"]], judged.rename(columns={"prediction": label})], axis=1)
    content = csv_bytes(table[["id", label, "probability", "margin", "review"]])
    if output:
        write_atomic(output, content)
    else:
        click.echo(content, nl=False)
    estimate = decision.out_of_fold
    click.echo(
        f"{len(table)} posts, {int(table['review'].sum())} for review; "
        f"out of fold this decision scores macro-F1 {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}].",
        err=True,
    )
    return 0


def _decision(project: Project, code: str) -> Decision:
    path = project.home.artifacts / "thresholds" / f"{code}.json"
    run = f"run `polar run --language {code} --profile {project.profile.name}` first"
    if not path.exists():
        raise InputError(f"{code} has not been decided in {project.home.root}: {run}.")
    decision = read_record(path, Decision)
    if decision.profile_fingerprint != project.profile.fingerprint:
        raise InputError(
            f"the decision of {code} was made with other settings than profile {project.profile.name!r} has now: "
            f"give the profile that it was made with, or {run}."
        )
    return decision


def _posts(path: Path) -> pd.DataFrame:
    """The id and text of every row. Raises InputError that names file, row and column."""
    if not path.exists():
        raise InputError(f"{path} does not exist: give a CSV file with the columns id and text.")
    rows = read_rows(path)
    missing = [name for name in ("id", "text") if name not in rows.frame]
    if missing:
        raise InputError(f"{path} lacks the column {' and '.join(missing)}: it should have id and text.")
    _refuse(rows, "id", rows.frame["id"].duplicated() | (rows.frame["id"] == ""), "is empty or doubled")
    _refuse(rows, "text", rows.frame["text"].str.strip() == "", "is empty")
    return rows.frame[["id", "text"]].reset_index(drop=True)


def _refuse(rows: Rows, column: str, bad: "pd.Series[bool]", problem: str) -> None:
    if bad.any():
        first = int(bad.to_numpy().argmax()) + 1
        raise InputError(f"{rows.place(first)}: `{column}` {problem}: correct it.")


def _logits(project: Project, decision: Decision, texts: list[str]) -> dict[str, Floats]:
    """Logits of every member; one without weight is not asked, so that an imported one need not be able to answer."""
    import numpy as np

    settings = {entry.name: entry for entry in project.profile.backbones}
    logits: dict[str, Floats] = {}
    for member in decision.members:
        if member.weight == 0:
            logits[member.backbone] = np.zeros(len(texts))
            continue
        backbone = make_backbone(settings[member.backbone], project.profile)
        ref = _adapter(project, decision, member.backbone)
        root = project.home.artifacts / "adapters"
        logits[member.backbone] = backbone.logits(decision.language, ref, texts, root, member.seeds)
    return logits


def _adapter(project: Project, decision: Decision, name: str) -> AdapterRef:
    path = project.home.artifacts / f"{name}_adapter" / f"{decision.language}.json"
    ref = read_record(path, AdapterRef) if path.exists() else None
    if ref is None or ref.sha256 != decision.adapters[name]:
        raise InputError(
            f"the adapter {name} of {decision.language} is not the one that was decided with: "
            f"materialize thresholds for {decision.language} again."
        )
    return ref
