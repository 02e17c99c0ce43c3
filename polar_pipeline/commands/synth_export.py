"""`polar synth export`: synthetic posts with what became of them, in the form that `synthesis.source: file` reads."""

import csv
import json
from pathlib import Path

import click
import pandas as pd

from polar_pipeline.corpus.posts import REAL
from polar_pipeline.corpus.text import is_blank
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.synthesis.from_file import PARENT, SHOWN, id_column, language_column, without_formula
from polar_pipeline.task.card import TaskCard

_FORMS = (".csv", ".jsonl")


def export_posts(project: Project, codes: list[str], target: Path | None) -> int:
    """Write the synthetic posts of those languages that are finished. Returns the exit code: 1 if there are none.

    Raises InputError for a file of another kind, and for one that the profile reads its posts from.
    """
    target = target or project.results.root / "synthetic.csv"
    _check(project, target)
    lineage, tables = Lineage(project), list[pd.DataFrame]()
    for code in codes:
        if reasons := lineage.root_reasons("deduped_posts", code):
            click.echo(f"left out: {code}: {'; '.join(reasons)}", err=True)
        else:
            tables.append(exported(lineage.read("deduped_posts", code), code, project.card))
    text = project.card.columns.text
    whole = pd.concat([*tables, pd.DataFrame(columns=[text], dtype="str")], ignore_index=True)
    blank = whole[text].map(is_blank).to_numpy(dtype=bool)
    table = whole[~blank]
    if table.empty:
        click.echo(f"no synthetic post in {len(tables)} finished languages: nothing was written.", err=True)
        return 1
    write_atomic(target, spreadsheet_csv(table, project.card) if target.suffix == ".csv" else json_lines(table))
    kept = int((table["kept"] == "true").sum())
    spoken = table[language_column(project.card)].nunique()
    nothing = f"; {int(blank.sum())} are left out, of whose texts cleaning left nothing" if blank.any() else ""
    click.echo(f"{len(table)} synthetic posts of {spoken} languages, {kept} of them kept, in {target}{nothing}")
    return 0


def exported(curated: pd.DataFrame, language: str, card: TaskCard) -> pd.DataFrame:
    """The synthetic rows of a curated table, in columns that are named as the task card names them; all are texts."""
    rows = curated[curated["source"] != REAL].reset_index(drop=True)
    if rows.empty:  # `shown` is a column of synthetic posts
        rows = rows.assign(shown="", asked_type="")
    real = set(curated.loc[curated["source"] == REAL, "id"])
    reasons = [
        f"{stage}: {reason}" if stage else "" for stage, reason in zip(rows["stage"], rows["reason"], strict=True)
    ]
    return pd.DataFrame(
        {
            id_column(card): rows["id"],
            language_column(card): language,
            card.columns.text: rows["text"],
            card.label.column: [_word(card, label) for label in rows["label"]],
            # pairs have an id in common that no post has
            PARENT: rows["parent_id"].where(rows["parent_id"].isin(real), ""),
            "source": rows["source"],
            "kept": rows["keep"].map({True: "true", False: "false"}),
            "reason": reasons,
            "asked_type": rows["asked_type"],
            "judge_probability": rows["judge_probability"].map(lambda value: "" if pd.isna(value) else f"{value:g}"),
            "backbone_label": rows["backbone_label"].map(lambda label: "" if pd.isna(label) else _word(card, label)),
            SHOWN: rows["shown"],
        },
        dtype="str",
    )


def _word(card: TaskCard, label: int) -> str:
    return card.label.word(int(label))


def _check(project: Project, target: Path) -> None:
    if target.suffix not in _FORMS:
        raise InputError(f"{target} ends neither in .csv nor in .jsonl: give it another name.")
    path = project.synthesis(project.codes[0]).path
    if path and target.resolve().is_relative_to(Path(path).resolve()):
        raise InputError(f"{target} is among the files at synthesis.path, which the profile reads: name another file.")


def spreadsheet_csv(table: pd.DataFrame, card: TaskCard) -> bytes:
    """CSV that spreadsheets open as it is: with a mark of UTF-8, all fields quoted, and no cell that is a formula."""
    cells = {name: table[name].map(without_formula) for name in (id_column(card), card.columns.text, PARENT)}
    text = table.assign(**cells).to_csv(index=False, quoting=csv.QUOTE_ALL, lineterminator="\n")
    return text.encode("utf-8-sig")


def json_lines(table: pd.DataFrame) -> bytes:
    """One object per line, texts as they are."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in table.to_dict("records")).encode()
