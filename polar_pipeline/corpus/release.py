"""The organisers' release: what it holds, under which terms, how to fetch it and where it lies.

What does not belong here: how a file comes over the wire (download.py) and what is in it (posts.py).
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from polar_pipeline.errors import InputError
from polar_pipeline.storage.fingerprint import file_sha256
from polar_pipeline.storage.home import Home

if TYPE_CHECKING:
    from polar_pipeline.corpus.download import Patience, RemoteFile

# The address under which train/, dev/ and test/ lie, at the commit of which `release.sha256` holds the checksums. If the
# organisers move these folders, $POLAR_RELEASE_URL says where to; the checksums tell whether it is still the same release.
RELEASE_URL = "https://raw.githubusercontent.com/Polar-SemEval/data-public/43789fdb3464199e7480752f2ce521c697ce722f"

LICENCE_NOTICE = """\
The POLAR data of SemEval-2026 Task 9 belong to their organisers (https://github.com/Polar-SemEval/data-public).
  - The README of the release names CC BY 4.0, its LICENSE.txt is CC BY-NC-SA 4.0: keep to the stricter one.
  - The organisers ask that the data be used for research and not be passed on.
  - Test files carry a canary: never train on them, and never publish their texts where models are trained.
  - The posts were chosen for being polarising; many are hateful."""


def release_files() -> dict[str, str]:
    """sha256 of every file of the release by its path, as `train/amh.csv`."""
    table = (resources.files("polar_pipeline.corpus") / "release.sha256").read_text(encoding="utf-8")
    return {path: sha256 for sha256, path in (line.split() for line in table.splitlines())}


def fetch_release(
    target: Path,
    base_url: str | None = None,
    report: Callable[[str], None] = print,
    *,
    patience: "Patience | None" = None,
    files: Mapping[str, str] | None = None,
) -> list[Path]:
    """Download what is missing of the release into `target` and return the paths of all its files, each verified.

    `base_url` is $POLAR_RELEASE_URL or `RELEASE_URL` unless given, `files` (sha256 by path) the release's table. Stopped at
    any time, it goes on from there when called again. Raises InputError that names the file or address and the remedy.
    """
    # httpx takes a tenth of a second to import, and every process that asks where the data lie would pay for it
    from polar_pipeline.corpus.download import Patience, RemoteFile

    base = (base_url or os.environ.get("POLAR_RELEASE_URL") or RELEASE_URL).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise InputError(f"release address {base!r} should start with https://: correct POLAR_RELEASE_URL.")
    table = release_files() if files is None else files
    wanted = [RemoteFile(f"{base}/{name}", target / name, sha256) for name, sha256 in table.items()]
    target.mkdir(parents=True, exist_ok=True)
    try:
        # two writers of one part file would spoil it for each other
        with FileLock(target / ".fetch.lock", timeout=0):
            _fetch(wanted, report, patience or Patience())
    except Timeout:
        raise InputError(f"{target} is being fetched by another process: wait for it, or stop it first.") from None
    return [file.path for file in wanted]


def release_folder(home: Home, environment: Mapping[str, str]) -> Path:
    """Where the data lie: $POLAR_DATA_DIR if set, else this home's release. Raises InputError with the remedy."""
    if named := environment.get("POLAR_DATA_DIR"):
        folder = Path(named).expanduser()
        if not (folder / "train").is_dir():
            raise InputError(
                f"POLAR_DATA_DIR is {named}, which is not a folder with train/, dev/ and test/: correct it."
            )
        return folder
    table = release_files()
    there = sum((home.release / name).is_file() for name in table)
    if there < len(table):
        state = f"holds {there} of the release's {len(table)} files" if there else "holds no release yet"
        raise InputError(
            f"{home.release} {state}: run `polar data fetch`, or set POLAR_DATA_DIR, or use `--profile demo`."
        )
    return home.release


def release_sha256(folder: Path, code: str) -> dict[str, str]:
    """sha256 of those files of a language that are there, by their path, as `train/amh.csv`."""
    names = [f"{split}/{code}.csv" for split in ("train", "dev", "test")]
    return {name: file_sha256(folder / name) for name in names if (folder / name).is_file()}


def _fetch(files: "list[RemoteFile]", report: Callable[[str], None], patience: "Patience") -> None:
    from polar_pipeline.corpus.download import download
    from polar_pipeline.corpus.progress import watching

    missing = [file for file in files if not (file.path.is_file() and file_sha256(file.path) == file.sha256)]
    if len(missing) < len(files):
        report(f"{len(files) - len(missing)} of {len(files)} files are there and verified")
    if missing:
        with watching(len(missing), report) as watch:
            asyncio.run(download(missing, patience, watch))
