"""The review through a server: copies and posts in another language are flagged as such, and the rest is kept."""

from pathlib import Path

import pandas as pd
import pytest

from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.curation.review import review
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.home import Home
from polar_pipeline.synthesis.make import make_posts
from polar_pipeline_tests.synthesis import made


@pytest.mark.slow
def test_copies_and_another_language_are_flagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    server = made.Running(tmp_path, {"duplicate": 0.3, "foreign": 0.3, "german": 0.4})
    profile = Profile(name="x", description="", synthesis=made.settings(base_url=server.url, posts=240))
    posts = assign_folds(read_posts(bundled_folder(), "deu", made.CARD), profile.folds, 0)
    home, said = Home(tmp_path), list[str]()
    try:
        asked = make_posts(posts, "deu", made.CARD, profile.synthesis, 0, home.ledgers, said.append)
        found = review(posts, asked.posts, "deu", made.CARD, profile, home, said.append)
    finally:
        server.stop()
    table: pd.DataFrame = found.table[found.table["source"] != "real"]
    foreign = table[table["text"].str.contains("harbour")]
    assert len(foreign) > 30 and not foreign["keep"].any()
    assert (foreign["stage"].isin(["language", "length", "duplicate"])).all() and (foreign["stage"] == "language").any()
    german = table[~table["text"].str.contains("harbour")]
    texts = german.loc[german["keep"], "text"]
    assert texts.is_unique and found.usable == len(texts) > 25
    assert (german["stage"] == "duplicate").sum() > 30
    assert found.calls.dollars == 0 and found.agreement is None and found.stopped == ""  # no second look was wanted
