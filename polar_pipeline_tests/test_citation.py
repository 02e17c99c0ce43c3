"""The citation file and the changelog are of this version."""

import re
from pathlib import Path

import yaml

from polar_pipeline import __version__

ROOT = Path(__file__).parents[1]


def test_the_citation_file_is_valid_and_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the schema of 1.2.0 requires
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["version"] == __version__ and citation["title"] == "polar_pipeline"
    assert f'license = "{citation["license"]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(set(author) == {"name"} and author["name"] for author in citation["authors"])  # an entity, not a person


def test_the_changelog_begins_with_what_is_unreleased_and_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"(?m)^## \[(.+?)\]", text)
    assert versions[0] == "Unreleased" and __version__ in versions
    kinds = set(re.findall(r"(?m)^### (.+)$", text))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
