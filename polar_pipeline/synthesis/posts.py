"""Replies into posts: the table that curation reads, with every text that was asked for and where it came from.

Columns: those of the posts table (`source` is "direct", "rewrite", "contrast" or "perturbed"; `parent_id` the real post it was
made from, for a pair one made-up id that both share; `fold` that of the posts shown), `request`, the key in the ledger, and
`shown`, a JSON list of the ids of all real posts that the request showed: what a leak is looked for in.
"""

import json

import pandas as pd

from polar_pipeline.synthesis.request import Reply, Request
from polar_pipeline.task.card import TaskCard

COLUMNS = ["id", "text", "label", "split", "fold", "source", "parent_id", "request", "shown"]


def synthetic_posts(requests: list[Request], replies: list[Reply | None], card: TaskCard) -> pd.DataFrame:
    """One row per text, in the order of the plan. Split is train: they are trained on and never judged on."""
    rows = [
        {
            "id": f"{request.language}_syn_{request.number:05}_{place}",
            "text": text,
            "label": label,
            "split": "train",
            "fold": request.fold,
            "source": request.strategy,
            "parent_id": _parent(request, place),
            "request": reply.key,
            "shown": ids(request.shown),
        }
        for request, reply in zip(requests, replies, strict=True)
        if reply is not None
        for place, (label, text) in enumerate(zip(request.labels, reply.texts, strict=False))
    ]
    return as_table(rows, card)


def ids(shown: tuple[str, ...]) -> str:
    """Ids as one cell of the column `shown`."""
    return json.dumps(shown, ensure_ascii=False)


def as_table(rows: list[dict[str, object]], card: TaskCard) -> pd.DataFrame:
    """Rows with the types of the posts table; auxiliary labels are missing."""
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame = frame.astype({name: str for name in COLUMNS if name not in ("label", "fold")})
    frame = frame.astype({"label": "Int8", "fold": "Int8"})
    return frame.assign(**{name: pd.array([pd.NA] * len(frame), dtype="Int8") for name in card.auxiliary.columns})


def _parent(request: Request, place: int) -> str:
    if request.strategy == "rewrite":
        return request.shown[place]
    if request.strategy == "contrast":
        return f"{request.language}_pair_{request.number:05}_{place // 2}"
    return ""
