"""Tiny bases that several tests share; each is loaded once a session, because a test leaves none changed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.loading import load_base
from polar_pipeline.backbones.lora.tunable import AdaptedModel
from polar_pipeline_tests.backbones.lora import processes
from polar_pipeline_tests.backbones.lora.examples import settings


@pytest.fixture(scope="session")
def bases_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tiny checkpoints are built."""
    return tmp_path_factory.mktemp("bases")


@pytest.fixture(scope="session", params=processes.SHAPES)
def base(request: pytest.FixtureRequest, bases_root: Path) -> BaseModel:
    """Each shape, without an adapter; its head is drawn at loading, and is the same in whatever order tests run."""
    import torch

    torch.manual_seed(0)
    return load_base(settings(model=f"tiny:{request.param}", max_length=64), bases_root)


@pytest.fixture
def slot(bases_root: Path) -> AdaptedModel:
    """A place for an adapter in a tiny Gemma 3 of the test's own."""
    chosen = settings()
    return AdaptedModel(load_base(chosen, bases_root), chosen)


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests that another process found, with another order of its sets."""
    root = tmp_path_factory.mktemp("elsewhere")
    script = f"import json, pathlib; from {processes.__name__} import digests; "
    script += f"print(json.dumps(digests(pathlib.Path({str(root)!r}))))"
    variables = {**os.environ, "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"}
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same in this process."""
    return processes.digests(tmp_path_factory.mktemp("here"))
