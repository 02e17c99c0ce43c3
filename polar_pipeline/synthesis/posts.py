"""The table of synthetic posts: made from the replies of an endpoint, or of rows from elsewhere."""

import json

import pandas as pd

from polar_pipeline.endpoint.formats import Reply, Request
from polar_pipeline.task.card import TaskCard

COLUMNS = ["id", "text", "label", "split", "fold", "source", "parent_id", "request", "shown", "asked_type"]


def synthetic_posts(requests: list[Request], replies: list[Reply | None], card: TaskCard) -> pd.DataFrame:
    """The posts in the replies, one row per text, in the order of the plan. Columns: see `posts_table`.

    `source` is the strategy. `parent_id` is the rewritten post, or for a pair a made-up id that both halves share.
    """
    rows: list[dict[str, object]] = [
        {
            "id": f"{request.language}_syn_{request.number:05}_{position}",
            "text": text,
            "label": label,
            "split": "train",
            "fold": request.fold,
            "source": request.strategy,
            "parent_id": _parent_id(request, position),
            "request": reply.key,
            "shown": ids_json(request.shown),
            "asked_type": request.asked_type if label else "",
        }
        for request, reply in zip(requests, replies, strict=True)
        if reply is not None
        for position, (label, text) in enumerate(zip(request.labels, reply.texts, strict=False))
        if text is not None
    ]
    return posts_table(rows, card)


def posts_table(rows: list[dict[str, object]], card: TaskCard) -> pd.DataFrame:
    """Rows as a posts table with three more columns; auxiliary labels are missing.

    `request` is the request's key ("" where none was sent), `shown` a JSON list of the ids of all real posts that the
    request showed, or that the post was made from, in which a leak can be looked for. `asked_type` is the type that a
    positive post was asked to have ("" where none was): nobody has checked that it has it, or no other, so it is no
    auxiliary label.
    """
    frame = pd.DataFrame([{"asked_type": "", **row} for row in rows], columns=COLUMNS)
    frame = frame.astype({name: str for name in COLUMNS if name not in ("label", "fold")})
    frame = frame.astype({"label": "Int8", "fold": "Int8"})
    return frame.assign(**{name: pd.array([pd.NA] * len(frame), dtype="Int8") for name in card.auxiliary.columns})


def ids_json(shown: tuple[str, ...]) -> str:
    """Ids as one cell of the column `shown`."""
    return json.dumps(shown, ensure_ascii=False)


def _parent_id(request: Request, position: int) -> str:
    if request.strategy == "rewrite":
        return request.shown[position]
    return f"{request.language}_pair_{request.number:05}_{position // 2}" if request.strategy == "contrast" else ""
