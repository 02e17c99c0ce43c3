"""The organisers' release: its terms and checksums, how to fetch it, where it is; and the package's made-up corpus.

What does not belong here: what is in the files (posts.py).
"""

import os
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from polar_pipeline.errors import InputError
from polar_pipeline.storage.fingerprint import file_sha256
from polar_pipeline.storage.home import Home

if TYPE_CHECKING:
    from polar_pipeline.corpus.download import DownloadRetries

# The address of train/, dev/ and test/, at the commit to which the checksums in `release.sha256` belong. If the
# organisers move them, $POLAR_RELEASE_URL names the new address; the checksums show whether it is the same release.
RELEASE_URL = "https://raw.githubusercontent.com/Polar-SemEval/data-public/43789fdb3464199e7480752f2ce521c697ce722f"
SPLITS = ("train", "dev", "test")

LICENCE_NOTICE = """\
The POLAR data of SemEval-2026 Task 9 belong to their organisers (https://github.com/Polar-SemEval/data-public).
  - The README of the release names CC BY 4.0, its LICENSE.txt is CC BY-NC-SA 4.0: keep to the stricter one.
  - The organisers ask that the data be used for research and not be passed on.
  - Test files carry a canary: never train on them, and never publish their texts where models are trained.
  - The posts were chosen for being polarising; many are hateful."""


def release_files() -> dict[str, str]:
    """sha256 of every file of the release by its path, such as `train/amh.csv`."""
    table = (resources.files("polar_pipeline.corpus") / "release.sha256").read_text(encoding="utf-8")
    return {path: sha256 for sha256, path in (line.split() for line in table.splitlines())}


def fetch_release(
    target: Path,
    base_url: str | None = None,
    say: Callable[[str], None] | None = None,
    *,
    policy: "DownloadRetries | None" = None,
    files: Mapping[str, str] | None = None,
) -> list[Path]:
    """Download the missing files of the release into `target` and return the paths of all its files, each verified.

    `base_url` is $POLAR_RELEASE_URL or `RELEASE_URL` unless given, `files` (sha256 by path) the release's table.
    Progress goes to stderr, or as lines to `say`. Raises InputError that names the file or address and the remedy.
    """
    from filelock import FileLock, Timeout

    base = (base_url or os.environ.get("POLAR_RELEASE_URL") or RELEASE_URL).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise InputError(f"release address {base!r} should start with https://: correct POLAR_RELEASE_URL.")
    table = release_files() if files is None else files
    target.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(target / ".fetch.lock", timeout=0):
            _fetch_missing(base, table, target, policy, say)
    except Timeout:
        raise InputError(f"{target} is being fetched by another process: wait for it, or stop it first.") from None
    return [target / name for name in table]


def _fetch_missing(
    base: str,
    table: Mapping[str, str],
    target: Path,
    policy: "DownloadRetries | None",
    say: Callable[[str], None] | None,
) -> None:
    # not at the top: every process that asks where the data are would pay for these imports
    from polar_pipeline.corpus.download import DownloadRetries, download
    from polar_pipeline.corpus.progress import progress, to_stderr

    missing = {name: sha256 for name, sha256 in table.items() if not _is_whole(target / name, sha256)}
    if len(missing) < len(table):
        (say or to_stderr)(f"{len(table) - len(missing)} of {len(table)} files are there and verified")
    if missing:
        with progress("files", len(missing), say=say) as advance:
            download(base, missing, target, policy or DownloadRetries(), lambda name: advance(1, name))


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


def release_folder(home: Home, environment: Mapping[str, str]) -> Path:
    """Where the data are: $POLAR_DATA_DIR if set, else this home's release. Raises InputError with the remedy."""
    if named := environment.get("POLAR_DATA_DIR"):
        folder = Path(named).expanduser()
        if not (folder / "train").is_dir():
            raise InputError(
                f"the data folder (--data or POLAR_DATA_DIR) is {named}, which is not a folder with train/, dev/ and "
                "test/: correct it."
            )
        return folder
    table = release_files()
    there = sum((home.release / name).is_file() for name in table)
    if there < len(table):
        state = f"has {there} of the release's {len(table)} files" if there else "has no release yet"
        raise InputError(
            f"{home.release} {state}: run `polar data fetch`, or set POLAR_DATA_DIR, or use `--profile demo`."
        )
    return home.release


def bundled_folder() -> Path:
    """The folder with train/, dev/ and test/ of the made-up corpus, for a first run and for tests."""
    return Path(str(resources.files("polar_pipeline.corpus") / "bundled"))
