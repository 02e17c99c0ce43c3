"""A language identifier of the user's own: a fastText model, such as lid.176 or GlotLID, in place of CLD3."""

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

from polar_pipeline.corpus.identification import Identification, Identifier
from polar_pipeline.errors import InputError
from polar_pipeline.task.languages import language_code

_LABEL = "__label__"
_TRY = "import sys, fasttext; fasttext.load_model(sys.argv[1]).predict('a', k=1, threshold=0.0)"
_SPOKEN = {"pnb": "pa", "pan": "pa", "cmn": "zh", "npi": "ne", "ory": "or", "pes": "fa", "swh": "sw", "khk": "mn"}


@functools.lru_cache(maxsize=2)
def fasttext_identifier(path: Path) -> Identifier:
    """The identifier that a fastText file (`.bin` or `.ftz`) holds.

    Its labels name languages by ISO 639 codes, with a script or without: `__label__ur`, `__label__hau_Latn`. Raises
    InputError if the file or the package is missing, or the file is no such model.
    """
    try:
        import fasttext
    except ImportError:
        raise InputError(
            "curation.language_model needs the package fasttext-predict: pip install polar-pipeline[fasttext]."
        ) from None
    if not path.is_file():
        raise InputError(f"curation.language_model: there is no file {path}.")
    # a damaged file can end the process that loads it, so another process tries first
    if subprocess.run([sys.executable, "-c", _TRY, str(path)], capture_output=True, check=False).returncode:
        raise InputError(f"curation.language_model: {path} is no fastText model, or is damaged.")
    model = fasttext.load_model(str(path))

    def identify(text: str) -> Identification:
        return _predict(model, text)

    if not identify("the and of to in is").code:
        raise InputError(
            f"curation.language_model: {path} is no language identifier, its labels are no language codes."
        )
    return Identifier(identify, {})


def _predict(model: Any, text: str) -> Identification:
    """The likeliest language; the code is "" for a text that the model knows no word of."""
    labels, probabilities = model.predict(" ".join(text.replace("\x00", " ").split()), k=1, threshold=0.0)
    if not labels:
        return Identification("", 0.0, False)
    return Identification(_code(labels[0]), min(float(probabilities[0]), 1.0), True)


@functools.cache
def _code(label: str) -> str:
    """The ISO 639-1 code of a label, or its own code where there is none, "" where it is no language."""
    from langcodes import Language

    name = label.removeprefix(_LABEL).split("_")[0]
    code = language_code(name)
    if code is None:
        return ""
    return _SPOKEN.get(code) or str(Language.get(code).language or code)
