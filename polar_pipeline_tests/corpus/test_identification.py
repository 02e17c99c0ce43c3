"""Which language texts are in: enough to notice a file of another one, silent where the identifier knows nothing."""

from polar_pipeline.corpus.identification import identify, is_identified, language_shares
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.task.languages import language
from polar_pipeline_tests.corpus.tables import CARD

GERMAN, ENGLISH = (read_posts(bundled_folder(), code, CARD)["text"].tolist() for code in ("deu", "eng"))


def test_shares_of_a_mixed_file() -> None:
    shares = language_shares([*GERMAN[:100], *ENGLISH[:50]], seed=0)
    assert list(shares)[:2] == ["deu", "eng"] and shares["deu"] > 0.5 and 0.2 < shares["eng"] < 0.34
    assert language_shares([], seed=0) == {}


def test_a_sample_stands_for_many() -> None:
    many = GERMAN * (3000 // len(GERMAN))
    assert language_shares(many, seed=1) == language_shares(many, seed=1)
    assert abs(language_shares(many, seed=1)["deu"] - language_shares(GERMAN, seed=1)["deu"]) < 0.05


def test_control_characters_do_no_harm() -> None:
    assert identify("das ist\x00 ein deutscher Satz, den jeder versteht").code == "de"


def test_which_languages_it_knows() -> None:
    known = {code: is_identified(language(code)) for code in ("deu", "zho", "hau", "ori", "pan", "nld")}
    assert known == {"deu": True, "zho": True, "hau": True, "ori": False, "pan": False, "nld": True}
