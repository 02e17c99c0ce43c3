"""Posts, settings and a server for the tests of synthesis."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polar_pipeline.curation.fold_leakage import likely_parents
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.generate import Made
from polar_pipeline.synthesis.generate import make_posts as generate_posts
from polar_pipeline.task.card import load_card

CARD = load_card("polar")


def make_posts(posts: int = 200, seed: int = 0) -> pd.DataFrame:
    """A posts table: train in five folds, dev and test outside."""
    generator = np.random.default_rng(seed)
    split = np.repeat(["train", "dev", "test"], [posts, 20, 40])
    label = pd.array(generator.integers(0, 2, len(split)), dtype="Int8")
    label[split == "test"] = pd.NA
    frame = pd.DataFrame({"id": [f"deu_{place:04}" for place in range(len(split))], "split": split, "label": label})
    frame["text"] = [f"Beitrag {name} Nummer {place}: alles wie immer" for place, name in enumerate(split)]
    frame["fold"] = pd.array(np.where(split == "train", np.arange(len(split)) % 5, -1), dtype="Int8")
    frame["source"], frame["parent_id"] = "real", ""
    return frame.assign(**{name: pd.array([0] * len(frame), dtype="Int8") for name in CARD.auxiliary.columns})


def generated(*arguments: Any) -> Made:
    """`make_posts` of the package, with the project's own search for parents."""
    return generate_posts(*arguments, likely_parents)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(**changes: Any) -> SynthesisSettings:
    """Small and quick."""
    base: dict[str, Any] = {
        "source": "endpoint", "posts": 60, "concurrency": 8, "timeout": 1.0, "attempts": 5, "max_dollars": None,
        "price_prompt": 1.0, "price_completion": 1.0,
    }  # fmt: skip
    return SynthesisSettings(**(base | changes))


class Running:
    """The misbehaving server in a process of its own."""

    def __init__(
        self, folder: Path, rules: dict[str, float], delay: float = 0.0, per_second: float = 0.0, port: int = 0
    ) -> None:
        written = folder / "port"
        written.unlink(missing_ok=True)
        arguments = json.dumps({"rules": rules, "delay": delay, "per_second": per_second, "port": port})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "polar_pipeline_tests.endpoint.server", str(written), arguments]
        )
        end = time.monotonic() + 30
        while not (written.exists() and written.read_text()):
            assert time.monotonic() < end and self._process.poll() is None, "the server did not start"
            time.sleep(0.02)
        self.port = int(written.read_text())
        self.address = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.address}/v1"

    def get(self, what: str) -> Any:
        """`count`, `calls` or `answered`."""
        with urllib.request.urlopen(f"{self.address}/{what}", timeout=10) as answer:
            return json.load(answer)

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
