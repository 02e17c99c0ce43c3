"""What a materialization shows in the UI: row counts, column schemas, tables, plots. No text of posts goes in here."""

from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from polar_pipeline.corpus.audit import Audit
from polar_pipeline.decision.record import Decisions
from polar_pipeline.storage.files import plain_name
from polar_pipeline.task.card import TaskCard

if TYPE_CHECKING:
    from collections.abc import Mapping


_FIGURES = (
    "threshold", "threshold_spread", "calibration_error", "strategy", "shift_auc", "shift_response", "review_margin",
)  # fmt: skip


def frame_metadata(frame: pd.DataFrame) -> dict[str, Any]:
    """Row count and column schema of a table."""
    columns = [dg.TableColumn(str(name), str(kind)) for name, kind in frame.dtypes.items()]
    return {"dagster/partition_row_count": len(frame), "dagster/column_schema": dg.TableSchema(columns)}


def split_table(posts: pd.DataFrame) -> dg.MetadataValue[Any]:
    """Posts, labelled posts and share of positives per split."""
    rows = [
        {
            "split": str(split),
            "posts": len(group),
            "labelled": int(group["label"].notna().sum()),
            "share positive": round(float(group["label"].mean()), 4) if group["label"].notna().any() else None,
            "in folds": int((group["fold"] >= 0).sum()),
        }
        for split, group in posts.groupby("split", sort=False)
    ]
    return table(rows)


def audit_metadata(audit: Audit) -> dict[str, Any]:
    """Every finding of the audit: numbers as charts over time, the rest as it is."""
    return {name: _plain(value) for name, value in audit.model_dump().items() if name != "language"}


def decision_metadata(decisions: Decisions, card: TaskCard) -> dict[str, Any]:
    """The decisions' figures: those of the only label, or a row for each of several."""
    estimate, name = decisions.out_of_fold, summary_name(card)
    found = {f"{name}_out_of_fold": estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    if card.labels:
        rows = [
            {
                "label": one.target,
                card.metric: one.out_of_fold.value,
                "share positive": one.positives,
                "members": ", ".join(f"{member.name} {member.weight:.2f}" for member in one.members),
                **{figure: getattr(one, figure) for figure in _FIGURES},
            }
            for one in decisions.targets
        ]
        weights = {"class_weights": list(decisions.class_weights)} if decisions.class_weights else {}
        return {**found, **{key: dg.MetadataValue.json(value) for key, value in weights.items()}, "labels": table(rows)}
    decision = decisions.first
    return {
        **found,
        **{figure: getattr(decision, figure) for figure in _FIGURES},
        "members": table(
            [{**member.model_dump(), "seeds": ", ".join(map(str, member.seeds))} for member in decision.members]
        ),
        **{  # a table without rows would need a schema
            part: table([entry.model_dump() for entry in entries])
            for part in ("excluded", "candidates", "without", "rules")
            if (entries := getattr(decision, part))
        },
    }


def summary_name(card: TaskCard) -> str:
    """The task's metric as the name of a figure in MLflow and metadata, such as macro_f1."""
    return plain_name(card.metric)


def picture(text: str, png: str) -> dg.MetadataValue[Any]:
    """A base64 PNG, with the text that stands for it."""
    return dg.MetadataValue.md(f"![{text}](data:image/png;base64,{png})")


def table(rows: "list[dict[str, Any]]") -> dg.MetadataValue[Any]:
    """Rows of plain values as a table."""
    return dg.MetadataValue.table([dg.TableRecord({key: _plain(value) for key, value in row.items()}) for row in rows])


def _plain(value: Any) -> Any:
    if isinstance(value, dict | list | tuple):
        return dg.MetadataValue.json(list(value) if isinstance(value, tuple) else value)
    if isinstance(value, float):
        return float(f"{value:.5g}")  # a table is read by people
    return "" if value is None else value


def metric_values(metadata: "Mapping[str, Any]") -> dict[str, float]:
    """The numbers of a metadata dictionary, for the tracked run."""
    return {
        key: float(value)
        for key, value in metadata.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
