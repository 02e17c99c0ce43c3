"""Every row keeps its place and gets a verdict; real posts stay; copies of held-out posts are leakage and go."""

from pathlib import Path

import pandas as pd
import pytest

from polar_pipeline.augmentation.gate import cap_share
from polar_pipeline.backbones.base import fitted_rows
from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import REAL, read_posts
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.curation.curate import STAGES, VERDICT, curate, curate_by_profile, for_backbones, funnel
from polar_pipeline.curation.embedding import NgramEmbedder
from polar_pipeline.curation.fold_leakage import likely_parents
from polar_pipeline.curation.quality_filter import Objection
from polar_pipeline.settings.curation import CurationSettings
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.home import Home
from polar_pipeline.synthesis.generate import make_posts as make_synthetic_posts
from polar_pipeline.synthesis.posts import posts_table
from polar_pipeline_tests.synthesis import made
from polar_pipeline_tests.synthesis.made import CARD, make_posts

WORDS = [
    "Die",
    "Stadt",
    "hat",
    "wieder",
    "einmal",
    "nichts",
    "getan",
    "und",
    "alle",
    "reden",
    "nur",
    "über",
    "das",
    "Wetter",
    "von",
    "gestern",
    "Abend",
    "im",
    "Park",
    "am",
    "Fluss",
]


def real_posts() -> pd.DataFrame:
    posts = make_posts(120)
    return posts.assign(
        text=[
            " ".join(WORDS[(i * 7 + j * (i % 5 + 1)) % len(WORDS)] for j in range(14)) + f" {i}"
            for i in range(len(posts))
        ]
    )


def synthetic(*texts: str) -> pd.DataFrame:
    rows = [
        {"id": f"deu_syn_{i}", "text": text, "label": i % 2, "split": "train", "fold": i % 5, "source": "direct",
         "parent_id": "", "request": "k"}
        for i, text in enumerate(texts)
    ]  # fmt: skip
    return posts_table(rows, CARD)


def verdicts(*texts: str, **changes: object) -> pd.DataFrame:
    settings = CurationSettings.model_validate(changes)
    table = curate(real_posts(), synthetic(*texts), "deu", CARD, settings, NgramEmbedder())
    return table[table["source"] != REAL].reset_index(drop=True)


GOOD = "Gestern im Park haben alle über die Stadt geredet, und getan hat wieder keiner was."


def test_each_stage_objects_to_its_own() -> None:
    found = verdicts(
        GOOD,
        "   ",
        "kurz",
        "Сегодня в городе снова ничего не сделали, и все говорят о погоде.",
        "Yesterday everybody in the park was talking about the city and nobody did anything again.",
        "Hier ist ein Beitrag über die Stadt, die nichts tut: wieder hat keiner was getan.",
        "Es tut mir leid, aber ich kann keinen Beitrag über die Stadt schreiben.",
        "Die Stadt <table class='x'> hat wieder einmal nichts getan und alle reden",
        "Die Stadt hat wieder nichts getan, und alle reden im Park über das,",
    )
    assert found["stage"].tolist() == [
        "", "empty", "length", "language", "language", "meta", "meta", "markup", "truncated",
    ]  # fmt: skip
    assert found["keep"].tolist() == [True] + [False] * 8
    assert (found.loc[~found["keep"], "reason"] != "").all()


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_near_copies_of_real_posts_go_whatever_their_split(split: str) -> None:
    posts = real_posts()
    original = posts[posts["split"] == split].iloc[3]
    found = verdicts(GOOD, str(original["text"]).upper() + "!!")
    assert found.loc[1, "stage"] == "duplicate" and found.loc[1, "similar_to"] == original["id"]
    assert found.loc[1, "similarity"] >= 0.9 and split in str(found.loc[1, "reason"])
    assert found.loc[0, "keep"]


def test_of_two_alike_synthetic_posts_the_first_stays() -> None:
    found = verdicts(GOOD, GOOD.replace("geredet", "gesprochen"), near_duplicate=0.7)
    assert found["keep"].tolist() == [True, False] and found.loc[1, "similar_to"] == "deu_syn_0"


def pair(number: int, *texts: str) -> list[dict[str, object]]:
    return [
        {"id": f"pair{number}_{label}", "text": text, "label": label, "split": "train", "fold": 0, "source": "contrast",
         "parent_id": f"pair{number}", "request": "k"}
        for label, text in zip((1, 0), texts, strict=True)
    ]  # fmt: skip


def paired_verdicts(rows: list[dict[str, object]], look_again: object = None, **changes: object) -> pd.DataFrame:
    settings = CurationSettings.model_validate(changes)
    table = curate(real_posts(), posts_table(rows, CARD), "deu", CARD, settings, NgramEmbedder(), look_again)  # type: ignore[arg-type]
    return table[table["source"] != REAL].set_index("id")


def test_the_halves_of_a_pair_may_be_as_alike_as_they_were_asked_to_be() -> None:
    rows = pair(0, GOOD, GOOD.replace("keiner", "jeder")) + pair(
        1, GOOD.replace("Park", "Zoo"), GOOD.replace("Park", "Bad")
    )
    found = paired_verdicts(rows)
    assert found["keep"].tolist() == [True, True, False, False]  # the second pair is like the first
    assert found.loc["pair1_1", "similar_to"] in ("pair0_1", "pair0_0") and set(found["stage"]) == {"", "duplicate"}


@pytest.mark.parametrize(
    "fallen", ["Sehr kurz", "Polarisiert: Gestern waren im Park wieder einmal alle nur am Meckern."]
)
@pytest.mark.parametrize("first", [True, False])
def test_when_one_half_falls_the_other_falls_too_and_takes_no_other_post_with_it(fallen: str, first: bool) -> None:
    halves = (fallen, GOOD) if first else (GOOD, fallen)
    copy = synthetic(GOOD.replace("Park", "Zoo")).to_dict("records")
    found = paired_verdicts(pair(0, *halves) + copy)
    whole = "pair0_0" if first else "pair0_1"
    assert found.loc[whole, "stage"] == "pair" and "other half" in str(found.loc[whole, "reason"])
    assert found["keep"].tolist() == [False, False, True] and found.loc[whole, "similar_to"] == ""


def test_a_half_that_copies_a_real_post_takes_the_other_with_it() -> None:
    copied = str(real_posts()["text"][3]).upper()
    found = paired_verdicts(pair(0, GOOD, copied))
    assert found["stage"].tolist() == ["pair", "duplicate"] and found["similar_to"].tolist() == ["", "deu_0003"]


def test_a_half_that_verification_objects_to_takes_the_other_with_it() -> None:
    def look_again(posts: pd.DataFrame) -> list[Objection | None]:
        return [Objection("judge", "no") if name == "pair0_1" else None for name in posts["id"]]

    other = "Im Zoo war es gestern so voll, dass wir nach einer Stunde wieder gegangen sind."
    found = paired_verdicts(
        pair(0, GOOD, GOOD.replace("keiner", "jeder")) + synthetic(other).to_dict("records"), look_again
    )
    assert found["stage"].tolist() == ["judge", "pair", ""]


def test_one_text_cannot_have_both_labels() -> None:
    found = paired_verdicts(pair(0, GOOD, GOOD.upper() + "!"))
    assert set(found["stage"]) == {"pair"} and "same text" in str(found["reason"].iloc[0])


def test_one_other_word_in_a_long_post_is_a_copy_by_its_words_and_said_so() -> None:
    real = real_posts()
    words = str(real["text"][3]).split()
    found = verdicts(" ".join("Unwetterwarnungen" if place in (4, 9) else word for place, word in enumerate(words)))
    assert found.loc[0, "stage"] == "duplicate" and found.loc[0, "similar_to"] == "deu_0003"
    assert "by its words" in str(found.loc[0, "reason"]) and found.loc[0, "similarity"] < 0.9
    assert verdicts(str(real["text"][3]).upper() + "!!").loc[0, "reason"] == "the same text as a real post of train"


def test_what_a_row_is_like_is_always_kept() -> None:
    chain = [GOOD]
    for word, other in [
        ("geredet", "gesprochen"),
        ("Stadt", "Bahn"),
        ("Gestern", "Heute"),
        ("getan", "gesagt"),
        ("alle", "viele"),
    ]:
        chain.append(chain[-1].replace(word, other))
    found = verdicts(*chain, near_duplicate=0.85).set_index("id")
    like = found.loc[found["stage"] == "duplicate", "similar_to"]
    assert len(like) >= 2 and found.loc[like, "keep"].all() and found["keep"].sum() >= 2


def test_more_of_an_accepted_language_than_real_posts_have_is_flagged() -> None:
    english = [
        f"The people in the city number {i} said nothing about what they would do with all of it" for i in range(60)
    ]
    german = [f"Der Zug Nummer {i} kam in {i + 3} Minuten wieder einmal nicht und alle warten nur" for i in range(200)]
    real = real_posts()
    real.loc[:11, "text"] = [
        f"They said that this was all that we could do about it, and number {i} is here" for i in range(12)
    ]
    table = curate(
        real, synthetic(*german, *english), "deu", CARD, CurationSettings(near_duplicate=1.0), NgramEmbedder()
    )
    found = table[table["source"] != REAL]
    flagged = (found["stage"] == "language").tolist()[len(german) :]
    assert (
        20 < sum(flagged) < 40  # of 260 posts, every tenth may be English
        and not flagged[0]
        and flagged[-1]
        and "of real posts" in str(found["reason"].iloc[-1])
    )


def test_bold_labels_are_seen_though_cleaning_takes_the_stars_off() -> None:
    assert verdicts(f"**Polarized** {GOOD}").loc[0, "stage"] == "leakage"


def test_no_more_than_the_share_is_kept() -> None:
    texts = [f"Gestern im Park haben {i * 37} Leute nur über {WORDS[i]} und {WORDS[-i]} geredet." for i in range(1, 15)]
    table = curate(real_posts(), synthetic(*texts), "deu", CARD, CurationSettings(near_duplicate=1.0), NgramEmbedder())
    assert table["keep"].all()
    found = cap_share(table, 0.05)[lambda table: table["source"] != REAL]
    assert found["keep"].sum() == int(120 * 0.05 / 0.95)
    assert set(found["stage"]) == {"", "share"}


def test_real_posts_stay_in_their_order_and_backbones_get_no_dropped_synthetic_ones() -> None:
    posts = real_posts()
    table = curate(posts, synthetic(GOOD, "kurz"), "deu", CARD, CurationSettings(), NgramEmbedder())
    assert table["id"].tolist()[: len(posts)] == posts["id"].tolist() and table["keep"][: len(posts)].all()
    given = for_backbones(table)
    assert len(given) == len(posts) + 1 and "keep" in given and not set(VERDICT[1:]) & set(given)


def test_contradictions_are_kept_unless_the_settings_say_drop() -> None:
    posts = real_posts()
    posts.loc[1, "text"] = str(posts.loc[0, "text"]).lower()
    posts.loc[0, "label"], posts.loc[1, "label"] = 0, 1
    for setting, kept in (("keep", [True, True]), ("drop", [False, False])):
        settings = CurationSettings.model_validate({"contradictions": setting})
        table = curate(posts, posts_table([], CARD), "deu", CARD, settings, NgramEmbedder())
        assert table["keep"][:2].tolist() == kept and table["keep"][2:].all()
        assert len(for_backbones(table)) == len(posts)  # scored all the same


def test_contradictions_are_dropped_without_folds_too() -> None:
    posts = real_posts()
    posts.loc[1, "text"] = str(posts.loc[0, "text"]).lower()
    posts.loc[0, "label"], posts.loc[1, "label"] = 0, 1
    posts["fold"] = pd.array([-1] * len(posts), dtype="Int8")
    settings = CurationSettings.model_validate({"contradictions": "drop"})
    table = curate(posts, posts_table([], CARD), "deu", CARD, settings, NgramEmbedder())
    assert (
        table["keep"][:2].tolist() == [False, False]
        and fitted_rows(table).sum() == (posts["split"] == "train").sum() - 2
    )


def test_the_funnel_counts_every_row_once() -> None:
    table = curate(
        real_posts(), synthetic(GOOD, "kurz", GOOD + "!", "  "), "deu", CARD, CurationSettings(), NgramEmbedder()
    )
    rows = funnel(table)
    assert sum(int(str(row["made"])) for row in rows) == 4
    for row in rows:
        taken = sum(int(str(value)) for name, value in row.items() if name not in ("source", "label", "made"))
        assert taken == row["made"]


def test_a_small_share_has_all_sources_and_labels_and_whole_pairs() -> None:
    sources = ["direct"] * 50 + ["rewrite"] * 30 + ["contrast"] * 20
    rows = [
        {"id": f"s{i}", "text": f"Text {i}", "label": i % 2, "split": "train", "fold": i % 5, "source": source,
         "parent_id": f"pair{i // 2}" if source == "contrast" else "", "request": "k"}
        for i, source in enumerate(sources)
    ]  # fmt: skip
    table = pd.concat([real_posts(), posts_table(rows, CARD)], ignore_index=True)
    table = table.assign(keep=True, stage="", reason="")
    kept_before: set[str] = set()
    for share, most in ((0.1, 13), (0.2, 30), (0.3, 51)):
        kept = cap_share(table, share)[lambda table: table["keep"] & (table["source"] != REAL)]
        assert most - 1 <= len(kept) <= most
        assert (
            abs(
                kept["source"].value_counts() / len(kept) - pd.Series({"direct": 0.5, "rewrite": 0.3, "contrast": 0.2})
            ).max()
            < 0.1
        )
        assert abs(float(kept["label"].mean()) - 0.5) < 0.1
        assert (kept[kept["source"] == "contrast"]["parent_id"].value_counts() == 2).all()
        assert kept_before <= set(kept["id"])
        kept_before = set(kept["id"])
    for most in range(1, 100):  # whatever the share, no pair is parted and at most one place is left empty
        kept = cap_share(table, most / (most + 120))[lambda table: table["keep"] & (table["source"] != REAL)]
        assert (kept[kept["source"] == "contrast"]["parent_id"].value_counts() == 2).all()
        assert most - 1 <= len(kept) <= most
    assert cap_share(table, 0.0)["keep"].sum() == len(real_posts())


def test_no_stage_has_the_name_of_another_column_of_the_funnel() -> None:
    found = curate(
        real_posts(), synthetic(f"Polarisiert: {GOOD}", GOOD), "deu", CARD, CurationSettings(), NgramEmbedder()
    )
    rows = funnel(found)
    assert [(row["label"], row.get("leakage", 0), row["kept"]) for row in rows] == [(0, 1, 0), (1, 0, 1)]
    assert not {"source", "label", "made", "kept"} & set(STAGES)


@pytest.mark.slow
def test_copies_and_another_language_are_flagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    server = made.Running(tmp_path, {"duplicate": 0.3, "foreign": 0.3, "german": 0.4})
    profile = Profile(name="x", description="", synthesis=made.settings(base_url=server.url, posts=240))
    posts = assign_folds(read_posts(bundled_folder(), "deu", made.CARD), profile.folds, 0)
    home, said = Home(tmp_path), list[str]()
    try:
        asked = make_synthetic_posts(
            posts, "deu", made.CARD, profile.synthesis, 0, home.ledgers, said.append, likely_parents
        )
        found = curate_by_profile(posts, asked.posts, "deu", made.CARD, profile, home, said.append)
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
    assert found.calls.dollars == 0 and found.judged == 0 and found.stopped == ""  # no verification was wanted
