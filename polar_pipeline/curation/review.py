"""The review of a language's synthetic posts by all that the profile asks for: one path for the asset and the command line.

What does not belong here: the rules themselves, and how many of the posts that pass are trained on.
"""

from typing import NamedTuple

import pandas as pd

from polar_pipeline.corpus.posts import REAL
from polar_pipeline.curation.curate import curate
from polar_pipeline.curation.embedding import make_embedder
from polar_pipeline.curation.second_look import SecondLook
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.home import Home
from polar_pipeline.synthesis.answers import Calls
from polar_pipeline.synthesis.endpoint import Endpoint, Progress
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import language as registered


class Review(NamedTuple):
    """The table in which every row says whether it is kept, and what second look and embeddings cost and the look found."""

    table: pd.DataFrame
    calls: Calls
    stopped: str  # what ended the second look before all posts were seen; "" when nothing did
    agreement: float | None  # of the judge with the labels; None where it was not asked

    @property
    def usable(self) -> int:
        """Synthetic posts that nothing objects to."""
        return int((self.table["keep"] & (self.table["source"] != REAL)).sum())


def review(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    language: str,
    card: TaskCard,
    profile: Profile,
    home: Home,
    progress: Progress,
) -> Review:
    """`real` and `synthetic` are posts tables. Asks the endpoint only where the profile wants it to."""
    endpoint = Endpoint(registered(language), profile.synthesis, home.ledgers, progress)
    embedder = make_embedder(profile.curation.embedder, home.embeddings, endpoint)
    look = SecondLook(card, profile.curation, embedder, endpoint)
    table = curate(real, synthetic, language, card, profile.curation, embedder, look)
    if look.stopped:
        progress(f"{language}: {look.stopped}; the second look did not see all posts")
    return Review(table, look.calls.plus(embedder.calls), look.stopped, look.agreement)
