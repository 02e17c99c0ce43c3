"""A pretrained model before it is loaded: whether it can be had, where it is, and which weights it has.

Which weights a model has is known by the sha256 of all its weight, configuration and tokenizer files. Hashes are
remembered by path, size and times of change, so that 54 GB are read once.
"""

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polar_pipeline.errors import InputError
from polar_pipeline.pretrained.tiny import check_tiny, tiny_checkpoint
from polar_pipeline.settings.models import ModelSource
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.fingerprint import canonical_json, file_sha256, fingerprint

HASHES = "file_hashes.json"

_RECENT = 2 * 10**9  # nanoseconds: a file that changed so shortly ago may change again within one tick of its clock
_UNSAFE = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|pickle|msgpack|h5|gguf)")
_MODEL_FILE = re.compile(
    r".*\.safetensors(\.index\.json)?|config\.json|(tokenizer|special_tokens|added_tokens|vocab|merges|sentencepiece|spiece).*"
)


def check_source(source: ModelSource) -> None:
    """Raises InputError for a model that cannot be had as it is named, without loading it or asking a hub."""
    if source.tiny:
        check_tiny(source.model)
        return
    place = Path(source.model)
    if not place.is_dir():
        if place.is_file():
            raise InputError(
                f"model {source.model!r} of {source.used_by} is a file: give the folder of a model, "
                f"with config.json, tokenizer.json and .safetensors, or the name of one on the hub."
            )
        # a name on the hub is `name` or `owner/name`
        if source.model.startswith((".", "/", "~")) or source.model.count("/") > 1:
            raise InputError(
                f"model {source.model!r} of {source.used_by} is no folder: correct its path, "
                f"or give the name of a model on the hub."
            )
        return
    names = sorted(file.name for file in place.iterdir())
    if not any(name in names for name in ("config.json", "modules.json")):
        raise InputError(f"folder {place} of {source.used_by} holds no config.json: give the folder of a model.")
    if not any(place.glob("**/*.safetensors")) and (others := [name for name in names if _UNSAFE.fullmatch(name)]):
        raise InputError(
            f"folder {place} of {source.used_by} has its weights in {others[0]}, and only safetensors are read: "
            f"save the model again with `save_pretrained`, or fetch it with its .safetensors files."
        )


def model_location(source: ModelSource, root: Path) -> str:
    """A folder, or a name on the hub. Tiny models are built under `root`."""
    if not source.tiny:
        return source.model
    silence_libraries()
    return str(tiny_checkpoint(source.model, root))


def silence_libraries() -> None:
    """No progress bars and no tables of missing keys, which `load_base` reports in a sentence."""
    import logging

    from transformers.utils import logging as transformers_logging

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says that kernels for CPUs could be faster
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def base_identity(source: ModelSource, root: Path) -> str:
    """Which weights the base of `source` has, without loading it: sha256 of its files, or the commit at the hub.

    `root` is the folder of bases, where hashes are remembered. Raises InputError if the model cannot be had.
    """
    location = model_location(source, root)
    if not Path(location).is_dir():
        return hub_commit(location, source)
    return folder_identity(Path(location), root / HASHES)


def folder_identity(folder: Path, cache: Path) -> str:
    """sha256 of a model's weights, configuration and tokenizer. Raises InputError if one cannot be read."""
    try:
        files = sorted(file for file in folder.iterdir() if file.is_file() and _MODEL_FILE.fullmatch(file.name))
        digests = cached_sha256(files, cache)
    except OSError as error:
        raise InputError(f"model {folder} cannot be read ({error}): allow it, or fetch the model again.") from error
    return fingerprint([[file.name, digest] for file, digest in zip(files, digests, strict=True)])


def hub_commit(location: str, source: ModelSource) -> str:
    """The commit of the revision at the hub; it holds the sha256 of every large file, see `check_downloaded`."""
    return _snapshot(location, source).name  # the cache has a folder per commit


def check_downloaded(location: str, source: ModelSource, cache: Path) -> None:
    """Raises InputError if a downloaded file is not what the hub published: it keeps large files under their sha256."""
    folder = _snapshot(location, source)
    files = [file for file in sorted(folder.iterdir()) if re.fullmatch(r"[0-9a-f]{64}", file.resolve().name)]
    for file, digest in zip(files, cached_sha256(files, cache), strict=True):
        if digest != file.resolve().name:
            raise InputError(
                f"{file.name} of model {source.model!r} is damaged (its sha256 is not the published one): "
                f"remove {file.resolve()}, it is then downloaded again."
            )


def _snapshot(location: str, source: ModelSource) -> Path:
    from huggingface_hub import hf_hub_download

    file = fetched(lambda: hf_hub_download(location, "config.json", revision=source.revision), source)
    return Path(file).parent


def fetched(fetch: Callable[[], Any], source: ModelSource) -> Any:
    """The result of `fetch`. Raises InputError instead of the many errors with which a model cannot be had."""
    from huggingface_hub.errors import GatedRepoError
    from safetensors import SafetensorError

    try:
        return fetch()
    except (OSError, ValueError, SafetensorError) as error:
        gated = isinstance(error, GatedRepoError) or isinstance(error.__cause__, GatedRepoError)
        if gated or "You are trying to access a gated repo" in str(error):  # a missing one mentions gated ones too
            raise InputError(
                f"model {source.model!r} is gated: accept its licence at https://huggingface.co/{source.model} "
                f"and set HF_TOKEN to a token of the account that did."
            ) from error
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"model {source.model!r} (revision {source.revision}) of {source.used_by} cannot be loaded "
            f"({reason}): check its name or folder, and that the hub can be reached."
        ) from error


def cached_sha256(files: list[Path], cache: Path) -> list[str]:
    """sha256 of each file; those of files that did not change since are read from the JSON file `cache`."""
    known = _read_cache(cache)
    found, added = [], False
    for file in files:
        stat, now = file.stat(), time.time_ns()
        path, state = str(file.resolve()), [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        entry = known.get(path, [])
        if entry[:-1] != state:
            entry = [*state, file_sha256(file)]
            if now - stat.st_ctime_ns > _RECENT:
                known[path], added = entry, True
        found.append(entry[-1])
    if added and os.access(cache.parent, os.W_OK):  # a home that may only be read is hashed each time
        known = {path: entry for path, entry in known.items() if Path(path).exists()}
        write_atomic(cache, canonical_json({"files": known, "sha256": fingerprint(known)}))
    return found


def _read_cache(cache: Path) -> dict[str, list[Any]]:
    """What is remembered; nothing if the file is damaged, because a wrong hash would refuse a good adapter."""
    try:
        found = json.loads(cache.read_bytes())
        known: dict[str, list[Any]] = found["files"]
        return known if found["sha256"] == fingerprint(known) else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
