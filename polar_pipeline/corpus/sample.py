"""The corpus that ships with the package: made-up posts in the layout of the release, for a first run and for tests."""

from importlib import resources
from pathlib import Path


def bundled_folder() -> Path:
    """The folder with train/, dev/ and test/ of the made-up corpus."""
    return Path(str(resources.files("polar_pipeline.corpus") / "bundled"))


def bundled_languages() -> tuple[str, ...]:
    """Codes of the languages it has, sorted."""
    return tuple(sorted(file.stem for file in (bundled_folder() / "train").glob("*.csv")))
