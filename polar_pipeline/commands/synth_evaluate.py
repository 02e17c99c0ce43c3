"""`polar synth evaluate`: whether synthetic posts help a backbone, and whether their judge can be believed."""

import click
from rich.table import Table

from polar_pipeline.augmentation.gate import Gate, ShareResult, gate, with_labels
from polar_pipeline.backbones.base import Backbone
from polar_pipeline.backbones.factory import make_backbone
from polar_pipeline.commands.printing import new_table, print_table
from polar_pipeline.curation.agreement import Agreement, agreements
from polar_pipeline.curation.curate import Curated, curate_by_profile
from polar_pipeline.curation.fold_leakage import likely_parents
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.report.comparison import verdict
from polar_pipeline.settings.backbones import ImportedSettings, LoraSettings
from polar_pipeline.synthesis.generate import Made, make_posts

_SHARE_COLUMNS = ("language", "allowed", "share", "posts", "macro-F1", "difference", "interval", "verdict")
_AGREEMENT_COLUMNS = ("language", "posts", "between", "count", "agreement", "kappa")
_MEANING = (
    "The backbone learned from real posts alone, and not from the fold of the post. A judge that agrees with the plan "
    "but not with the backbone may share the generator's idea of the label rather than that of the real labels."
)


def print_evaluation(project: Project, codes: list[str], name: str | None = None) -> int:
    """Train with and without synthetic posts, and say with an interval whether they help; then who agrees with whom.

    `name` is the backbone of the profile that is trained; None takes the linear one. Returns the exit code: 1 when a
    language has no post to train with.
    """
    profile = project.profile
    if profile.synthesis.source == "none":
        raise InputError(
            f"profile {profile.name!r} makes no synthetic posts: set synthesis.source to offline, endpoint or file."
        )
    backbone = None if name is None else _backbone(project, name, codes)
    shares, agreed = new_table(_SHARE_COLUMNS), new_table(_AGREEMENT_COLUMNS)
    closing, empty = list[str](), 0
    try:
        for code in codes:
            posts = project.posts(code)
            settings, ledgers = project.synthesis(code), project.home.ledgers
            made = make_posts(posts, code, project.card, settings, profile.seed, ledgers, _say, likely_parents)
            curated = curate_by_profile(
                posts, made.posts, code, project.card, profile, project.home, _say, project.language_model
            )
            decided = gate(curated.table, code, project.card, profile, backbone)
            _add_shares(shares, code, decided.results)
            _add_agreements(agreed, code, agreements(with_labels(curated.table, decided)))
            closing.append(_closing(project, code, made, curated, decided))
            empty += not curated.usable
    finally:  # results are worth seeing even if a later language fails
        if backbone:
            backbone.release()
        if shares.row_count:
            print_table(shares, least=100)
            click.echo("Intervals hold for all shares of a language together, at 95%.")
        if agreed.row_count:
            print_table(agreed, least=80)
            click.echo(_MEANING)
        for line in closing:
            click.echo(line)
    return 1 if empty else 0


def _backbone(project: Project, name: str, codes: list[str]) -> Backbone:
    """The backbone of the profile with this name; its adapters stay in the home, so that none is trained twice.

    Raises InputError if there is none, or if it cannot be trained on one language after the other.
    """
    entries = {entry.name: entry for entry in project.profile.backbones}
    entry = entries.get(name)
    if entry is None:
        raise InputError(f"backbone {name!r} is not in profile {project.profile.name!r}: use {', '.join(entries)}.")
    if isinstance(entry, ImportedSettings) or (isinstance(entry, LoraSettings) and entry.scope != "language"):
        raise InputError(f"backbone {name!r} is not trained here on one language alone: name another one.")
    backbone = make_backbone(entry, project.profile, project.card, project.home)
    if left := [code for code in codes if not backbone.speaks(code)]:
        raise InputError(f"backbone {name!r} is not for {', '.join(left)}: name other languages with --language.")
    return backbone


def _add_shares(table: Table, code: str, results: list[ShareResult]) -> None:
    """A row per share."""
    for result in results:
        found = result.difference
        said = verdict(found).replace("B is better", "helps").replace("A is better", "hurts")
        table.add_row(
            code, f"{result.asked:.0%}", f"{result.share:.1%}", str(result.posts),
            f"{result.macro_f1:.4f}", f"{found.value:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}",
            said if result.posts else "",
        )  # fmt: skip
    table.add_section()


def _add_agreements(table: Table, code: str, found: list[Agreement]) -> None:
    """A row per pair; a pair that gave one label alone has no kappa."""
    for one in found:
        kappa = "" if one.kappa is None else f"{one.kappa:.3f}"
        table.add_row(code, one.posts, f"{one.one} and {one.other}", str(one.common), f"{one.share:.1%}", kappa)
    table.add_section()


def _closing(project: Project, code: str, made: Made, curated: Curated, decided: Gate) -> str:
    """One sentence: how many posts there were to train with, and whether they help."""
    settings, most = project.profile.synthesis.of(code), project.profile.curation.of(code).share
    asked = f"{len(made.posts)} posts read" if settings.source == "file" else f"{settings.posts} posts asked for"
    stopped = "".join(f"; {why}" for why in (made.stopped, curated.stopped) if why)
    posts = f"{code}: {curated.usable} usable of {asked}{stopped}"
    if not curated.usable:
        return f"{posts}; nothing to train with."
    if decided.share == 0:
        return f"{posts}; no share up to {most:.0%} helps beyond the error, so train without them."
    best = next(result for result in decided.results if result.share == decided.share)
    return f"{posts}; train with up to {decided.share:.0%} of them ({best.difference.value:+.4f} macro-F1 out of fold)."


def _say(line: str) -> None:
    click.echo(line, err=True)
