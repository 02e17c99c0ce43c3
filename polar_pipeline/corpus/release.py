"""The organisers' release: its terms and checksums, how to fetch it, where it is; and the package's made-up corpus.

A file is in place only once its sha256 is verified, so a fetch that was stopped goes on with those that are missing.
What does not belong here: what is in the files (posts.py).
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from polar_pipeline.corpus.progress import progress, to_stderr
from polar_pipeline.errors import InputError
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.fingerprint import file_sha256
from polar_pipeline.storage.home import Home

if TYPE_CHECKING:
    import requests

# The address of train/, dev/ and test/, at the commit to which the checksums in `release.sha256` belong. If the
# organisers move them, $POLAR_RELEASE_URL names the new address; the checksums show whether it is the same release.
RELEASE_URL = "https://raw.githubusercontent.com/Polar-SemEval/data-public/43789fdb3464199e7480752f2ce521c697ce722f"
SPLITS = ("train", "dev", "test")
_AT_ONCE = 8  # files, of at most 4 MB
_TRANSIENT_STATUS = (408, 425, 429, *range(500, 600))

LICENCE_NOTICE = """\
The POLAR data of SemEval-2026 Task 9 belong to their organisers (https://github.com/Polar-SemEval/data-public).
  - The README of the release names CC BY 4.0, its LICENSE.txt is CC BY-NC-SA 4.0: keep to the stricter one.
  - The organisers ask that the data be used for research and not be passed on.
  - Test files carry a canary: never train on them, and never publish their texts where models are trained.
  - The posts were chosen for being polarising; many are hateful."""


@dataclass(frozen=True)
class DownloadRetries:
    """When a failed request is sent again; times in seconds.

    `attempts` counts requests for one file, those with wrong or incomplete content too; waits double from `first_wait`
    to `longest_wait`, unless the server asks for another one, of at most `longest_asked`.
    """

    attempts: int = 4
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_asked: int = 900
    timeout: float = 30.0


def release_files() -> dict[str, str]:
    """sha256 of every file of the release by its path, such as `train/amh.csv`."""
    table = (resources.files("polar_pipeline.corpus") / "release.sha256").read_text(encoding="utf-8")
    return {path: sha256 for sha256, path in (line.split() for line in table.splitlines())}


def fetch_release(
    target: Path,
    base_url: str | None = None,
    say: Callable[[str], None] | None = None,
    *,
    retries: DownloadRetries | None = None,
    files: Mapping[str, str] | None = None,
) -> list[Path]:
    """Download the missing files of the release into `target` and return the paths of all its files, each verified.

    `base_url` is $POLAR_RELEASE_URL or `RELEASE_URL` unless given, `files` (sha256 by path) the release's table.
    Progress goes to stderr, or as lines to `say`. Files that are complete stay when another fails.
    Raises InputError that names the file or address and the remedy: not found, wrong content each time, or no answer.
    """
    from filelock import FileLock, Timeout

    base = (base_url or os.environ.get("POLAR_RELEASE_URL") or RELEASE_URL).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise InputError(f"release address {base!r} should start with https://: correct POLAR_RELEASE_URL.")
    table = release_files() if files is None else files
    target.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(target / ".fetch.lock", timeout=0):
            whole = [name for name in table if (target / name).is_file() and file_sha256(target / name) == table[name]]
            missing = {name: sha256 for name, sha256 in table.items() if name not in whole}
            if whole:
                (say or to_stderr)(f"{len(whole)} of {len(table)} files are there and verified")
            if missing:
                _download(base, missing, target, retries or DownloadRetries(), say)
    except Timeout:
        raise InputError(f"{target} is being fetched by another process: wait for it, or stop it first.") from None
    return [target / name for name in table]


def release_folder(home: Home, environment: Mapping[str, str]) -> Path:
    """Where the data are: $POLAR_DATA_DIR if set, else this home's release. Raises InputError with the remedy."""
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
        state = f"has {there} of the release's {len(table)} files" if there else "has no release yet"
        raise InputError(
            f"{home.release} {state}: run `polar data fetch`, or set POLAR_DATA_DIR, or use `--profile demo`."
        )
    return home.release


def release_sha256(folder: Path, language: str) -> dict[str, str]:
    """sha256 of one language's files that exist, by their path under `folder`, in the order train, dev, test.

    The bytes of the test file are hashed as they are, labels included; nothing in them is read.
    """
    names = [f"{split}/{language}.csv" for split in SPLITS]
    return {name: file_sha256(folder / name) for name in names if (folder / name).is_file()}


def bundled_folder() -> Path:
    """The folder with train/, dev/ and test/ of the made-up corpus, for a first run and for tests."""
    return Path(str(resources.files("polar_pipeline.corpus") / "bundled"))


def _download(
    base: str, files: Mapping[str, str], target: Path, retries: DownloadRetries, say: Callable[[str], None] | None
) -> None:
    from multiprocessing.pool import ThreadPool

    session = _session(retries)

    def fetch(name: str) -> str:
        _fetch(session, f"{base}/{name}", target / name, files[name], retries)
        return name

    # its threads end with the process: Ctrl-C must not wait for a server that asked to be left alone for minutes
    with progress("files", len(files), say=say) as advance, ThreadPool(_AT_ONCE) as pool:
        for name in pool.imap_unordered(fetch, files):
            advance(1, name)


def _session(retries: DownloadRetries) -> "requests.Session":
    """Connections that all files share; urllib3 retries failures that may pass, up to the body."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3 import Retry

    retry = Retry(
        total=retries.attempts - 1,
        status_forcelist=_TRANSIENT_STATUS,
        backoff_factor=retries.first_wait,
        backoff_max=retries.longest_wait,
        backoff_jitter=retries.first_wait,
        retry_after_max=retries.longest_asked,
        raise_on_status=False,
    )
    session = requests.Session()
    session.headers["Accept-Encoding"] = "identity"  # Content-Length then shows whether anything is missing
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=_AT_ONCE, max_retries=retry))
    return session


def _fetch(session: "requests.Session", url: str, path: Path, sha256: str, retries: DownloadRetries) -> None:
    """One file, asked for again while its content is broken or wrong. Raises InputError."""
    import requests

    problem = ""
    for _ in range(retries.attempts):
        try:
            response = session.get(url, stream=True, timeout=retries.timeout)
        except requests.ConnectionError as error:  # urllib3 has tried often enough
            raise InputError(_unreachable(url, error)) from None
        except requests.RequestException as error:
            problem = _unreachable(url, error)
            continue
        with response:
            if response.status_code in _TRANSIENT_STATUS:
                raise InputError(_unreachable(url, f"HTTP {response.status_code}"))
            if response.status_code != 200:
                remedy = "set POLAR_RELEASE_URL to the address that has train/, dev/ and test/"
                raise InputError(f"{url} answered HTTP {response.status_code}: {remedy}.")
            try:
                content = response.content
            except requests.RequestException as error:
                problem = _unreachable(url, error)
                continue
        found = hashlib.sha256(content).hexdigest()
        if found == sha256:
            write_atomic(path, content)
            return
        problem = (
            f"{url} is not the file of the release (its sha256 is {found}, expected {sha256}): "
            "check that POLAR_RELEASE_URL points at the right commit and that no proxy alters downloads."
        )
    raise InputError(problem)


def _unreachable(url: str, reason: object) -> str:
    remedy = "check the connection and run the command again, it fetches only what is missing"
    return f"{url} could not be fetched ({reason}): {remedy}."
