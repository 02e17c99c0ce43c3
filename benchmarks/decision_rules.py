"""The evidence for the decision defaults: all rules replayed on the scores of one run, by nested out-of-fold macro-F1.

Usage: POLAR_HOME=... POLAR_DATA_DIR=... python benchmarks/decision_rules.py --profile benchmarks/smash.yaml [--jobs 2]

The home is that of a finished `polar run --all` of the profile; dev must be outside its folds (`fit_on: train`).
Everything a rule fits for a fold comes from the other folds; rules that are tuned on dev are judged on train. Beside
each rule stands its mean difference to the default rule on the same posts, with a paired bootstrap 95% interval over
posts.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from polar_pipeline.decision.calibration import fit_temperature, sigmoid
from polar_pipeline.decision.decide import language_seed
from polar_pipeline.decision.screening import screen
from polar_pipeline.decision.selection import compare, nested_predictions
from polar_pipeline.decision.strategies import MemberScores, combine, fit_combination, gather, strategies
from polar_pipeline.decision.thresholds import RULES, best_threshold, choose_threshold
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.project import Project
from polar_pipeline.metrics.intervals import mean_interval, paired_resamples
from polar_pipeline.metrics.scores import Floats, Ints, macro_f1

SHARED = ("equal", "simplex", "ridge")
DEFAULT = "simplex, per language | bagged"
RESAMPLES = 2000


class Language(NamedTuple):
    """The labelled posts of one language, train first by fold and dev with fold -1, and its sound members' scores."""

    code: str
    labels: Ints
    folds: Ints
    members: list[MemberScores]

    def rows(self, which: Any) -> list[MemberScores]:
        return [member.rows(which) for member in self.members]


def read(code: str, project: Project) -> Language:
    """One language from the home's tables."""
    names = [backbone.name for backbone in project.profile.backbones]
    lineage = Lineage(project)
    posts = lineage.read("raw_posts", code)
    scores = pd.concat(lineage.read(f"{name}_dev_probabilities", code) for name in names)
    members, _ = screen(posts, gather(posts, scores, names, code))
    known = posts["label"].notna().to_numpy()
    labels, folds = (posts[column][known].to_numpy(dtype=int) for column in ("label", "fold"))
    return Language(code, labels, folds, [member.rows(known) for member in members])


def per_language(arguments: tuple[str, str]) -> dict[str, Ints]:
    """0/1 predictions of train (out of fold) and dev by each rule that looks at one language alone."""
    code, profile = arguments
    project = Project.load(profile)
    seed, settings = project.profile.seed, project.profile.decision
    language = read(code, project)
    train = language.folds >= 0
    known = {strategy: strategy for strategy in strategies(language.members)}
    found: dict[str, Ints] = {}
    for strategy in known:
        label = f"{strategy}, per language" if strategy in SHARED else f"{strategy} alone"
        for rule in RULES if strategy in SHARED else ("bagged",):
            found[f"{label} | {rule}"] = replay(language, strategy, rule, settings.resamples, seed)
        found[f"{label} | tuned on dev"] = tuned_on_dev(language, strategy)
    found["equal, raw logits | bagged"] = raw_average(language, settings.resamples, seed)
    found["best strategy per language, picked on dev | tuned on dev"] = picked_on_dev(language, list(known))
    inside, folds, labels = language.rows(train), language.folds[train], language.labels[train]
    found["best strategy per language, picked out of fold | bagged"] = nested_free(
        labels, folds, inside, settings, seed
    )
    found["simplex, departures beyond the error | bagged"] = nested_predictions(labels, folds, inside, settings, seed)
    return found | {"labels": language.labels, "train": train.astype(int)}


def replay(language: Language, strategy: str, rule: str, resamples: int, seed: int) -> Ints:
    """Train by the other folds, dev by all of train."""
    predictions = np.zeros(len(language.labels), dtype=int)
    for fold in np.unique(language.folds):
        inside = (language.folds >= 0) & (language.folds != fold)
        held_out = language.folds == fold
        fitted = fit_combination(strategy, language.labels[inside], language.rows(inside))
        probabilities = sigmoid(combine(fitted, language.rows(inside)))
        threshold = choose_threshold(rule, language.labels[inside], probabilities, resamples, seed).value
        predictions[held_out] = sigmoid(combine(fitted, language.rows(held_out))) >= threshold
    return predictions


def tuned_on_dev(language: Language, strategy: str) -> Ints:
    """Weights and threshold from dev, for all posts: what everybody does."""
    dev = language.folds < 0
    fitted = fit_combination(strategy, language.labels[dev], language.rows(dev))
    probabilities = sigmoid(combine(fitted, language.members))
    return (probabilities >= best_threshold(language.labels[dev], probabilities[dev])).astype(int)


def picked_on_dev(language: Language, known: list[str]) -> Ints:
    """The strategy that is best on dev when tuned there."""
    dev = language.folds < 0
    tuned = [tuned_on_dev(language, strategy) for strategy in known]
    return max(tuned, key=lambda predictions: macro_f1(language.labels[dev], predictions[dev]))


def raw_average(language: Language, resamples: int, seed: int) -> Ints:
    """The mean of uncalibrated logits, the largest scale wins."""
    raw = np.mean([member.logits.mean(axis=1) for member in language.members], axis=0)
    one = MemberScores("raw", (0,), raw[:, None])
    return replay(language._replace(members=[one]), "raw", "bagged", resamples, seed)


def nested_free(labels: Ints, folds: Ints, members: list[MemberScores], settings: Any, seed: int) -> Ints:
    """Each fold by the strategy that is best on the other folds, however small its lead."""
    predictions = np.zeros(len(labels), dtype=int)
    for fold in np.unique(folds):
        outside, inside = folds == fold, folds != fold
        rest = [member.rows(inside) for member in members]
        candidates, _ = compare(labels[inside], folds[inside], rest, settings, seed)
        best = max(candidates, key=lambda found: found.value)
        fitted = fit_combination(best.name, labels[inside], rest)
        probabilities = sigmoid(combine(fitted, rest))
        threshold = choose_threshold("bagged", labels[inside], probabilities, settings.resamples, seed).value
        predictions[outside] = sigmoid(combine(fitted, [member.rows(outside) for member in members])) >= threshold
    return predictions


def pooled(languages: list[Language], resamples: int, seed: int) -> dict[str, dict[str, Ints]]:
    """Ridge weights fitted over languages, with one intercept or one a language, thresholds a language or one for all.

    Languages are pooled with those that have the same members.
    """
    groups: dict[tuple[str, ...], list[Language]] = {}
    for language in languages:
        groups.setdefault(tuple(member.name for member in language.members), []).append(language)
    found: dict[str, dict[str, Ints]] = {}
    for intercepts in (False, True):
        name = f"ridge, pooled{' with language intercepts' if intercepts else ''}"
        for fold in (0, 1, 2, 3, 4, -1):
            sides = [side for group in groups.values() for side in pooled_scores(group, fold, intercepts)]
            shared = best_threshold(
                np.concatenate([s.labels for s in sides]), np.concatenate([s.inside for s in sides])
            )
            for side in sides:
                own = choose_threshold("bagged", side.labels, side.inside, resamples, seed).value
                for rule, threshold in (("bagged", own), ("one threshold for all", shared)):
                    whole = found.setdefault(f"{name} | {rule}", {}).setdefault(
                        side.code, np.zeros(len(side.held_out), dtype=int)
                    )
                    whole[side.held_out] = side.outside >= threshold
    return found


class Side(NamedTuple):
    """A language's probabilities in one fold: of the posts fitted on, with their labels, and of those held out."""

    code: str
    labels: Ints
    inside: Floats
    outside: Floats
    held_out: Any


def pooled_scores(group: list[Language], fold: int, intercepts: bool) -> list[Side]:
    """One logistic regression over the group's languages, then a temperature a language."""
    columns, labels, which, fitted_on = [], [], [], []
    for place, language in enumerate(group):
        inside = (language.folds >= 0) & (language.folds != fold)
        temperatures = [
            fit_temperature(np.repeat(language.labels[inside], len(m.seeds)), m.logits[inside].ravel())
            for m in language.members
        ]
        columns.append(
            np.stack([m.logits.mean(axis=1) / t for m, t in zip(language.members, temperatures, strict=True)], axis=1)
        )
        labels.append(language.labels[inside])
        which.append(np.full(inside.sum(), place))
        fitted_on.append(inside)
    features = np.concatenate([c[i] for c, i in zip(columns, fitted_on, strict=True)])
    one_hot = np.eye(len(group))[np.concatenate(which)] * (3.0 if intercepts else 0.0)  # 3: a light penalty
    model = LogisticRegression(max_iter=1000).fit(np.hstack([features, one_hot]), np.concatenate(labels))
    weights, own = model.coef_[0][: features.shape[1]], model.coef_[0][features.shape[1] :] * (3.0 if intercepts else 0)
    sides = []
    for place, language in enumerate(group):
        scores = columns[place] @ weights + own[place] + model.intercept_[0]
        last = fit_temperature(labels[place], scores[fitted_on[place]])
        probabilities, held_out = sigmoid(scores / last), language.folds == fold
        sides.append(
            Side(language.code, labels[place], probabilities[fitted_on[place]], probabilities[held_out], held_out)
        )
    return sides


def main() -> None:
    """Print the table, best rule first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    if not arguments.profile:
        print("nothing to replay: name with --profile the profile of a run that has ended in POLAR_HOME")
        return
    project = Project.load(arguments.profile)
    codes, seed = sorted(project.codes), project.profile.seed
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        found = dict(zip(codes, pool.map(per_language, [(code, arguments.profile) for code in codes]), strict=True))
    for name, languages in pooled([read(c, project) for c in codes], project.profile.decision.resamples, seed).items():
        for code, predictions in languages.items():
            found[code][name] = predictions
    print_table(found, seed)


def print_table(found: dict[str, dict[str, Ints]], seed: int) -> None:
    """One line a rule: languages that have it, out of fold, difference and interval, dev."""
    lines = []
    for rule in dict.fromkeys(rule for rules in found.values() for rule in rules if rule not in ("labels", "train")):
        values, dev, differences, draws = [], [], [], []
        for code, rules in found.items():
            if rule not in rules:
                continue
            train = rules["train"] == 1
            labels, own, default = (
                rules[key][train] if len(rules[key]) == len(train) else rules[key] for key in ("labels", rule, DEFAULT)
            )
            values.append(macro_f1(labels, own))
            differences.append(macro_f1(labels, own) - macro_f1(labels, default))
            draws.append(paired_resamples(labels, own, default, RESAMPLES, language_seed(seed, code)))
            if len(rules[rule]) == len(train):
                dev.append(macro_f1(rules["labels"][~train], rules[rule][~train]))
        lines.append((rule, values, mean_interval(differences, draws), dev))
    print(f"{'rule':58} languages  out of fold  difference          95% interval     dev")
    for rule, values, difference, dev in sorted(lines, key=lambda line: (-len(line[1]), -np.mean(line[1]))):
        shown = f"{np.mean(dev):.4f}" if dev else "     -"
        print(
            f"{rule:58} {len(values):9} {np.mean(values):12.4f} {difference.value:+11.4f}  "
            f"{difference.low:+.4f} to {difference.high:+.4f}  {shown}"
        )


if __name__ == "__main__":
    main()
