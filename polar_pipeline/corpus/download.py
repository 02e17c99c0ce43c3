"""Downloading files with pooch: several at a time, each in place only once its sha256 is verified.

A fetch that was stopped goes on with the files that are missing. pooch does not continue inside a file: what had
arrived of one (they have at most 4 MB) is fetched again. What does not belong here: which files there are (release.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from polar_pipeline.errors import InputError

if TYPE_CHECKING:
    import requests

AT_ONCE = 8
_TRANSIENT_STATUS = (408, 425, 429, *range(500, 600))
_TEMPORARY = "tmp????????"  # the names that pooch gives to files that are not complete


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


def download(
    base: str, files: Mapping[str, str], target: Path, policy: DownloadRetries, on_file: Callable[[str], None]
) -> None:
    """Fetch `files` (sha256 by path under `base`) into `target`, and call `on_file` with each path once it is complete.

    Files that are complete stay when another fails. Raises InputError that names the address and the remedy: not found,
    wrong content in each attempt, or no answer.
    """
    import pooch

    pooch.get_logger().setLevel("ERROR")  # its lines about each file would repeat what `on_file` shows
    for folder in {(target / name).parent for name in files}:
        folder.mkdir(parents=True, exist_ok=True)  # pooch's threads would race for it
        for stale in folder.glob(_TEMPORARY):  # of a process that was killed
            stale.unlink()
    fetcher = pooch.create(path=target, base_url=f"{base}/", registry=dict(files), retry_if_failed=policy.attempts - 1)
    send = _Downloader(policy)

    def fetch(name: str) -> str:
        _fetch(fetcher, name, send)
        return name

    # its threads end with the process: Ctrl-C must not wait for a server that asked to be left alone for minutes
    with ThreadPool(AT_ONCE) as pool:
        for name in pool.imap_unordered(fetch, files):
            on_file(name)


class _PermanentError(Exception):
    """An answer after which pooch should not try again, as it does after a ValueError or an error of requests."""


def _fetch(fetcher: Any, name: str, send: "_Downloader") -> None:
    """One file. Raises InputError."""
    import requests

    url = fetcher.get_url(name)
    try:
        fetcher.fetch(name, downloader=send)
    except _PermanentError as error:
        raise InputError(str(error)) from None
    except requests.RequestException as error:
        raise InputError(_unreachable(url, error)) from None
    except ValueError as error:  # pooch's word for a wrong hash, with both hashes in its first sentence
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise InputError(
            f"{url} is not the file of the release ({reason}): "
            "check that POLAR_RELEASE_URL points at the right commit and that no proxy alters downloads."
        ) from None


class _Downloader:
    """What pooch calls to fetch one file. Connections are shared, and urllib3 retries failures that may pass."""

    def __init__(self, policy: DownloadRetries) -> None:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3 import Retry

        self._timeout = policy.timeout
        retry = Retry(
            total=policy.attempts - 1,
            status_forcelist=_TRANSIENT_STATUS,
            backoff_factor=policy.first_wait,
            backoff_max=policy.longest_wait,
            backoff_jitter=policy.first_wait,
            retry_after_max=policy.longest_asked,
            raise_on_status=False,
        )
        self._session = requests.Session()
        self._session.headers["Accept-Encoding"] = "identity"  # Content-Length then shows whether anything is missing
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=AT_ONCE, max_retries=retry))

    def __call__(self, url: str, output_file: str, _pooch: Any) -> None:
        import requests

        try:
            response = self._session.get(url, stream=True, timeout=self._timeout)
        except requests.ConnectionError as error:  # urllib3 has tried often enough
            raise _PermanentError(_unreachable(url, error)) from None
        with response, Path(output_file).open("wb") as file:
            _refuse(response, url)
            _copy(response, file)


def _refuse(response: "requests.Response", url: str) -> None:
    if response.status_code in _TRANSIENT_STATUS:
        raise _PermanentError(_unreachable(url, f"HTTP {response.status_code}"))
    if response.status_code != 200:
        remedy = "set POLAR_RELEASE_URL to the address that has train/, dev/ and test/"
        raise _PermanentError(f"{url} answered HTTP {response.status_code}: {remedy}.")


def _copy(response: "requests.Response", file: IO[bytes]) -> None:
    for piece in response.iter_content(1 << 16):
        file.write(piece)


def _unreachable(url: str, reason: object) -> str:
    remedy = "check the connection and run the command again, it fetches only what is missing"
    return f"{url} could not be fetched ({reason}): {remedy}."
