"""A pretrained model before it is loaded: whether it can be had, where it is, and which weights it has.

Which weights a model has is known by the sha256 of all its weight, configuration and tokenizer files. Hashes are
remembered by path, size and times of change, so that 54 GB are read once.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polar_pipeline.errors import InputError
from polar_pipeline.pretrained.tiny import check_tiny, tiny_checkpoint
from polar_pipeline.settings.models import ModelSource
from polar_pipeline.storage.files import is_full, write_atomic
from polar_pipeline.storage.fingerprint import canonical_json, file_sha256, fingerprint

HASHES = "file_hashes.json"
DOWNLOADED = "downloaded.json"  # which snapshot of the hub this home uses, so that a branch that moves changes nothing

_NO_LIMIT = 2**31 - 1
_COUNTED_FROM_PADDING = ("roberta", "xlm-roberta")
_AMPERE = 8  # the first compute capability with bfloat16
_RECENT = 2 * 10**9  # nanoseconds: a file that changed so shortly ago may change again within one tick of its clock
# what of a repository is downloaded to embed: neither pickles nor copies for other engines
_WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model"]
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
    if "adapter_config.json" in names:
        raise InputError(
            f"folder {place} of {source.used_by} holds a LoRA adapter: merge it into its model, and give that folder."
        )
    # a part of a sentence-transformers model may have a pickle where the model itself has none
    parts = {file.parent for file in place.rglob("*") if _UNSAFE.fullmatch(file.name)} - {*place.glob("onnx*")}
    if unsafe := sorted(part for part in parts if not any(part.glob("*.safetensors"))):
        name = next(file.name for file in sorted(unsafe[0].iterdir()) if _UNSAFE.fullmatch(file.name))
        raise InputError(
            f"folder {unsafe[0]} of {source.used_by} has its weights in {name}, and only safetensors are read: "
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


def local_folder(source: ModelSource, root: Path, say: Callable[[str], None] | None = None) -> Path:
    """The folder of a model, which is downloaded on first use; `say` is told what and how large.

    Raises InputError if it cannot be had.
    """
    check_source(source)
    location = Path(model_location(source, root))
    if location.is_dir():
        return location
    known = _read_cache(root / DOWNLOADED).get(f"{source.model}@{source.revision}", [])
    if known and Path(known[0]).is_dir():
        return Path(known[0])
    folder = _downloaded(source, Path(known[0]).name if known else source.revision, say)
    check_source(source._replace(model=str(folder)))
    now = _read_cache(root / DOWNLOADED) | {f"{source.model}@{source.revision}": [str(folder)]}
    _write_cache(root / DOWNLOADED, now)
    return folder


def downloaded_commit(source: ModelSource, root: Path) -> str | None:
    """The commit of a model of the hub that this home uses, or None if it has used none."""
    known = _read_cache(root / DOWNLOADED).get(f"{source.model}@{source.revision}", [])
    return Path(known[0]).name if known else None


def _downloaded(source: ModelSource, revision: str, say: Callable[[str], None] | None) -> Path:
    """The whole snapshot of a revision: what another program left in the hub's cache may be a part of it.

    Where the hub cannot be asked, the cache is taken as it is, and `say` is told.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError

    silence_libraries()
    options: dict[str, Any] = {"revision": revision, "allow_patterns": _WANTED}
    with _explained(source):
        try:
            files = [file for file in snapshot_download(source.model, dry_run=True, **options) if file.will_download]
        except DryRunError:
            folder = Path(snapshot_download(source.model, local_files_only=True, **options))
            if say:
                say(f"the hub cannot be reached: model {source.model} is taken from {folder} as it is")
            return folder
        if say and files:
            size = sum(file.file_size or 0 for file in files)
            say(f"downloading model {source.model} once: {len(files)} files, {size / 1e6:,.1f} MB")
        return Path(snapshot_download(source.model, **options))


def refuse_foreign_code(folder: Path, source: ModelSource) -> None:
    """Raises InputError for a folder whose model needs code of its own, or code from outside sentence-transformers."""
    modules = read_json(folder / "modules.json")
    kinds = [str(one.get("type", "")) for one in modules] if isinstance(modules, list) else []
    foreign = [kind for kind in kinds if not kind.startswith("sentence_transformers.")]
    config = read_json(folder / "config.json")
    if config.get("auto_map"):
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        foreign += [kind for kind in [str(config.get("model_type"))] if kind not in CONFIG_MAPPING]
    if foreign:
        raise InputError(
            f"model {source.model!r} of {source.used_by} needs code of its own ({foreign[0]}), which is never run: "
            f"name a model whose architecture transformers knows."
        )


def position_limit(config: Any) -> int:
    """The most tokens that a model of `config` has positions for."""
    limit = getattr(config, "max_position_embeddings", None) or _NO_LIMIT
    # RoBERTa counts positions from the one after its padding token's
    return int(limit - config.pad_token_id - 1 if config.model_type in _COUNTED_FROM_PADDING else limit)


def pick_device(asked: str, used_by: str) -> str:
    """`cuda`, `mps` (Apple's GPU) or `cpu`; for auto the first that is there. Raises InputError if `asked` is not."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return next(name for name, found in there.items() if found)
    if not there[asked]:
        raise InputError(f"{used_by} asks for device {asked} and there is none: set device to auto or cpu.")
    return asked


def bfloat16_on_gpu() -> bool:
    """Whether the GPU computes in bfloat16; those before Ampere, such as T4 and V100, do not."""
    import torch

    return bool(torch.cuda.get_device_capability()[0] >= _AMPERE)


def read_json(path: Path) -> Any:
    """The content of a JSON file; an empty dict if there is none. Raises InputError if it cannot be read."""
    try:
        return json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): fetch the model again.") from error


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
        if (folder / "modules.json").is_file():  # sentence-transformers keeps pooling, prompts and layers beside
            files = sorted({*files, *folder.rglob("*.json"), *folder.rglob("*.safetensors")})
        digests = cached_sha256(files, cache)
    except OSError as error:
        raise InputError(f"model {folder} cannot be read ({error}): allow it, or fetch the model again.") from error
    return fingerprint(
        [[file.relative_to(folder).as_posix(), digest] for file, digest in zip(files, digests, strict=True)]
    )


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
    with _explained(source):
        return fetch()


@contextmanager
def _explained(source: ModelSource) -> Iterator[None]:
    from httpx2 import HTTPError
    from huggingface_hub.errors import GatedRepoError
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError, HTTPError) as error:
        if is_full(error) or isinstance(error, PermissionError):
            raise  # the machine's fault, which is named where it is caught
        gated = isinstance(error, GatedRepoError) or isinstance(error.__cause__, GatedRepoError)
        if gated or "You are trying to access a gated repo" in str(error):  # a missing one mentions gated ones too
            raise InputError(
                f"model {source.model!r} is gated: accept its licence at https://huggingface.co/{source.model} "
                f"and set HF_TOKEN to a token of the account that did."
            ) from error
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"model {source.model!r} (revision {source.revision}) of {source.used_by} cannot be loaded "
            f"({reason}): check its name or folder, and that the hub can be reached; "
            f"without a network, name the folder of a copy instead."
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
    if added:
        _write_cache(cache, {path: entry for path, entry in known.items() if Path(path).exists()})
    return found


def _write_cache(cache: Path, known: dict[str, list[Any]]) -> None:
    """Remember; a home that may only be read finds out again each time."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    if os.access(cache.parent, os.W_OK):
        write_atomic(cache, canonical_json({"files": known, "sha256": fingerprint(known)}))


def _read_cache(cache: Path) -> dict[str, list[Any]]:
    """What is remembered; nothing if the file is damaged, because a wrong hash would refuse a good adapter."""
    try:
        found = json.loads(cache.read_bytes())
        known: dict[str, list[Any]] = found["files"]
        return known if found["sha256"] == fingerprint(known) else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
