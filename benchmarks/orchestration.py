"""What Dagster, MLflow and stored files cost: the graph through `polar run`, beside the same stages called plainly.

Usage: python benchmarks/orchestration.py [--profile cpu] [--language deu --language eng ...]

Both sides do the same work on one core, one language after the other, from CSV to report. The share is
1 - plain / orchestrated; starting the process and importing the packages count as orchestration. Synthetic posts are
not made plainly, so the figure is that of a profile without them, such as cpu.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def orchestrated(profile: str, codes: list[str]) -> float:
    """Seconds of `polar run --jobs 1` in an empty home."""
    with tempfile.TemporaryDirectory() as home:
        languages = [part for code in codes for part in ("--language", code)]
        command = [sys.executable, "-m", "polar_pipeline", "run", "--profile", profile, "--jobs", "1", *languages]
        started = time.perf_counter()
        subprocess.run(
            command, check=True, env={**os.environ, **THREADS, "POLAR_HOME": home}, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - started


def plain(profile: str, codes: list[str]) -> float:
    """Seconds of the stages' functions alone, in this process, after their packages were imported."""
    import pandas as pd

    from polar_pipeline.backbones.base import Progress, training_fingerprint
    from polar_pipeline.backbones.factory import make_backbone
    from polar_pipeline.corpus.audit import audit
    from polar_pipeline.decision.predictions import predict_targets
    from polar_pipeline.decision.targets import decide_targets
    from polar_pipeline.defs.project import Project
    from polar_pipeline.report.evidence import LanguageResults, language_evidence, read_test_labels
    from polar_pipeline.report.page import render_report
    from polar_pipeline.storage.home import Home

    with tempfile.TemporaryDirectory() as home:
        project = Project.load(profile, {**os.environ, "POLAR_HOME": home})
        settings, card, root = project.profile, project.card, Home(Path(home))
        backbones = [make_backbone(entry, settings, card, root) for entry in settings.backbones]

        def one(code: str) -> object:
            posts = project.posts(code)
            findings = audit(posts, code, card, settings.seed)
            refs = {one.name: one.train(code, posts, Progress(), force=True) for one in backbones}
            scores = pd.concat(one.score(code, refs[one.name], posts) for one in backbones)
            adapters = {name: ref.sha256 for name, ref in refs.items()}
            hashed = training_fingerprint(posts, card)
            decisions = decide_targets(code, posts, scores, settings, card, adapters, hashed)
            predictions = predict_targets(decisions, posts, scores, card)
            labels = read_test_labels(project.data, code, card)
            return language_evidence(
                LanguageResults(posts, predictions, decisions, findings, card), labels, settings.report, settings.seed
            )

        one(codes[-1])  # imports and caches are warm; its adapter is written again below, to the same place
        started = time.perf_counter()
        render_report([one(code) for code in codes], {}, card, settings)
        return time.perf_counter() - started


def main() -> None:
    """Print both times and the share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="cpu" if os.environ.get("POLAR_DATA_DIR") else "demo")
    parser.add_argument("--language", action="append")
    arguments = parser.parse_args()
    from polar_pipeline.defs.project import Project

    codes = arguments.language or Project.load(arguments.profile).codes
    alone, whole = plain(arguments.profile, codes), orchestrated(arguments.profile, codes)
    print(f"{len(codes)} languages, profile {arguments.profile}, one core")
    print(f"stages called plainly      {alone:8.1f} s")
    print(f"through Dagster and MLflow {whole:8.1f} s")
    print(f"share of orchestration     {1 - alone / whole:8.1%}")


if __name__ == "__main__":
    for name, value in THREADS.items():
        os.environ.setdefault(name, value)
    main()
