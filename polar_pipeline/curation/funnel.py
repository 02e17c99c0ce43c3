"""The funnel: how many synthetic posts each stage took, by strategy and label."""

import pandas as pd

from polar_pipeline.corpus.posts import REAL
from polar_pipeline.curation.curate import STAGES


def funnel(table: pd.DataFrame) -> list[dict[str, object]]:
    """One row per source and label: source, label, made, one column per stage that took some, kept. Of synthetic posts only."""
    made = table[table["source"] != REAL]
    return [
        {
            "source": source,
            "label": label,
            "made": len(group),
            **{stage: int((group["stage"] == stage).sum()) for stage in STAGES if (made["stage"] == stage).any()},
            "kept": int(group["keep"].sum()),
        }
        for (source, label), group in made.groupby(["source", "label"], sort=True)
    ]
