"""Which files of trained models nobody needs: adapters that no stored output names, and what was kept beside them.

What does not belong here: tiny bases and the hashes of models, which every training reads.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path

from polar_pipeline.backbones.artifacts import META
from polar_pipeline.backbones.lora.checkpoints import WORK, finished_files, kept_files
from polar_pipeline.storage.fingerprint import folder_sha256
from polar_pipeline.storage.usage import files_below

_MONTH = 30 * 86400.0  # seconds in which an interrupted training is expected to be continued
_NAME = 16  # digits of the sha256 that are an adapter folder's name


def adapter_folders(root: Path) -> list[Path]:
    """All content-addressed folders below `root`, the folder of adapters."""
    return sorted(meta.parent for meta in root.glob(f"*/*/*/{META}"))


def damaged_adapters(root: Path) -> list[Path]:
    """Adapter folders whose bytes are not those that they are named after. Reads all of them."""
    return [folder for folder in adapter_folders(root) if folder_sha256(folder)[:_NAME] != folder.name]


def unused_model_files(root: Path, named: str) -> Iterator[Path]:
    """Files and folders below `root` that can go. `named`: everything in which outputs that are kept name adapters.

    An adapter that is named stays, and so do those that it names itself, as a language's share of a pooled one does.
    Of interrupted trainings, the newest of each backbone and language stays, and whatever changed in the last month.
    """
    folders, kept = adapter_folders(root), set[str]()
    while more := [one for one in folders if one.name not in kept and one.name in named]:
        kept |= {one.name for one in more}
        named += "".join((one / META).read_text(encoding="utf-8", errors="replace") for one in more)
    yield from (folder for folder in folders if folder.name not in kept)
    yield from (path for path in finished_files(root) if not _names_any(path, kept))
    yield from kept_files(root, kept)
    for language in root.glob(f"{WORK}/*/*"):
        by_age = sorted(language.iterdir(), key=_last_change)
        yield from (path for path in by_age[:-1] if _last_change(path) < time.time() - _MONTH)


def _names_any(path: Path, kept: set[str]) -> bool:
    words = re.findall(rf"\b[0-9a-f]{{{_NAME}}}\b", path.read_text(encoding="utf-8", errors="replace"))
    return not kept.isdisjoint(words)


def _last_change(path: Path) -> float:
    return max(file.lstat().st_mtime for file in (path, *files_below(path)))
