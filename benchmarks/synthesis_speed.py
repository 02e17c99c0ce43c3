"""Generation and deduplication beside `synthetictext` 0.2.0 in one run.

Usage: pip install --no-deps synthetictext==0.2.0 && POLAR_DATA_DIR=... python benchmarks/synthesis_speed.py

Generation: the same local server, which takes 0.5 s for an answer and refuses 2% of the calls with a 429. Ours: 9,000
posts at concurrency 128; the peer has no concurrency and asks for one post at a time, so 60 posts tell its rate.
Deduplication: the same 3,000 vectors of 384 dimensions, the same rows kept, and beside it our whole deduplication, with
the words of 3,000 posts; then 50,000 of ours with the memory of the process. `deduplication` as an argument: that part
alone.
"""

import importlib.util
import logging
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.text import normalise
from polar_pipeline.curation.dedup import Duplicates, duplicates, share_of_words, word_indices
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.generate import generate, planned_requests
from polar_pipeline.synthesis.posts import synthetic_posts
from polar_pipeline_tests.synthesis.made import Running

DELAY, REFUSED, CONCURRENCY, OURS, THEIRS = 0.5, 0.02, 128, 9000, 60


def our_generation(url: str, folder: Path) -> tuple[float, float, float]:
    """Requests and posts a second, and CPU milliseconds a request."""
    project = Project.load("cpu")
    posts = assign_folds(read_posts(project.data, "deu", project.card), project.profile.folds, 0)
    settings = SynthesisSettings(
        source="endpoint", posts=OURS, base_url=url, concurrency=CONCURRENCY, timeout=10, max_dollars=None
    )
    requests = planned_requests(posts, "deu", project.card, settings, 0)
    started, cpu = time.perf_counter(), time.process_time()
    done = generate(requests, folder, "deu", settings, lambda _: None)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    made = len(synthetic_posts(requests, done.replies, project.card))
    if made != OURS or done.account.open:
        raise SystemExit(f"{made} posts instead of {OURS}, {done.account}")
    return len(requests) / seconds, made / seconds, 1000 * cpu / len(requests)


def their_generation(url: str) -> tuple[float, float]:
    """Requests and posts a second of the peer's direct generation through its OpenAI provider."""
    from synthetictext.generators.direct import DirectGenerator
    from synthetictext.prompts.templates import PromptRenderer
    from synthetictext.providers.openai_provider import OpenAIProvider
    from synthetictext.task import TaskSpec

    os.environ["OPENAI_BASE_URL"] = url
    task = TaskSpec(
        name="polar",
        description="polarization",
        labels={0: "not polarized", 1: "polarized"},
        topics={"any": ["anything"]},
    )
    maker = DirectGenerator(task, OpenAIProvider(), PromptRenderer(task))
    started = time.perf_counter()
    made = maker.generate("deu", THEIRS, show_progress=False)
    seconds = time.perf_counter() - started
    return THEIRS / seconds, len(made) / seconds


def vectors(rows: int) -> Floats:
    """Unit vectors, float32 (rows, 384), a fifth of them near an earlier one."""
    generator = np.random.default_rng(0)
    found = generator.normal(size=(rows, 384))
    for row in np.flatnonzero(generator.random(rows) < 0.2)[1:]:
        found[row] = found[generator.integers(row)] + 0.3 * generator.normal(size=384)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def median_seconds(call: Callable[[], object], runs: int = 9) -> float:
    """Of several runs, after one that imports."""
    call()
    found = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return float(np.median(found))


def in_blocks_of_numpy(
    found: Floats, threshold: float, block: int = 384
) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """The rows that stay by plain matrix products in all threads, beside which faiss's index is to stand."""
    kept = np.zeros(0, dtype=np.int64)
    for start in range(0, len(found), block):
        rows = np.arange(start, min(start + block, len(found)))
        if len(kept):
            rows = rows[(found[rows] @ found[kept].T).max(axis=1) < threshold]
        near = np.tril(found[rows] @ found[rows].T >= threshold, -1)
        stays = np.ones(len(rows), dtype=bool)
        for place in np.flatnonzero(near.any(axis=1)):
            stays[place] = not (near[place] & stays).any()
        kept = np.concatenate([kept, rows[stays]])
    return kept


def deduplication() -> None:
    """3,000 rows on both sides, by cosine alone and with the words of as many posts; 50,000 on ours."""
    from synthetictext.filters.deduplication import EmbeddingDeduplicator

    few, threshold = vectors(3000), 0.9
    project = Project.load("cpu")
    texts = read_posts(project.data, "deu", project.card)["text"].tolist()[:3000]
    peer = EmbeddingDeduplicator(threshold=threshold)
    their_seconds = median_seconds(lambda: peer._intra_dedup(few), runs=3)

    def whole() -> Duplicates:
        keys = [normalise(text) for text in texts]
        return duplicates(keys, few, threshold, words=word_indices(texts, share_of_words(threshold)))

    ours, theirs = duplicates([""] * 3000, few, threshold), peer._intra_dedup(few)
    same = bool((ours.keep == theirs).all() and (in_blocks_of_numpy(few, threshold) == np.flatnonzero(theirs)).all())
    print(f"deduplication, 3,000 x 384: synthetictext {their_seconds:.3f} s; same rows kept by all: {same}")
    for name, call in (
        ("ours by cosine, faiss in one thread", lambda: duplicates([""] * 3000, few, threshold)),
        ("the same in blocks of numpy, all threads", lambda: in_blocks_of_numpy(few, threshold)),
        ("ours as curation does it, with texts and words", whole),
    ):
        seconds = median_seconds(call)
        print(f"  {name}: {seconds:.3f} s, ratio {their_seconds / seconds:.0f}")
    many = vectors(50_000)
    started = time.perf_counter()
    kept = int(duplicates([""] * len(many), many, threshold).keep.sum())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"deduplication, 50,000 x 384: {time.perf_counter() - started:.1f} s, {kept:,} kept, peak {peak:.2f} GiB")


def main() -> None:
    """Print both."""
    if importlib.util.find_spec("synthetictext") is None:
        print("nothing to compare with: pip install --no-deps synthetictext==0.2.0")
        return
    logging.disable(logging.WARNING)
    if sys.argv[1:] == ["deduplication"]:
        deduplication()
        return
    os.environ.setdefault("OPENAI_API_KEY", "none")
    with tempfile.TemporaryDirectory() as folder:
        server = Running(Path(folder), {"429_after": REFUSED}, DELAY)
        try:
            requests, posts, cpu = our_generation(server.url, Path(folder) / "ledger")
            their_requests, their_posts = their_generation(server.url)
        finally:
            server.stop()
    print(f"generation, requests a second: ours {requests:.0f}, synthetictext {their_requests:.2f}, "
          f"ratio {requests / their_requests:.0f}")  # fmt: skip
    print(
        f"generation, posts a second: ours {posts:.0f}, synthetictext {their_posts:.2f}, "
        f"ratio {posts / their_posts:.0f}"
    )
    print(f"CPU per request: {cpu:.1f} ms")
    deduplication()


if __name__ == "__main__":
    try:
        main()
    except InputError as error:  # no official data
        raise SystemExit(str(error)) from None
