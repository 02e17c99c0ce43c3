"""`polar compare`: two homes side by side, language by language, and over all."""

from pathlib import Path

import click
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from polar_pipeline.decision.record import Decision
from polar_pipeline.decision.selection import nested_table
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.intervals import Interval, confusion
from polar_pipeline.report.comparison import Comparison, compare_language, overall, verdict
from polar_pipeline.storage.home import Home
from polar_pipeline.storage.record import read_record


def compare_homes(first: Path, second: Path, languages: tuple[str, ...]) -> int:
    """Print the comparison of the languages that both homes have, or of those named. Returns the exit code."""
    homes = [Home(path.expanduser().resolve()) for path in (first, second)]
    there = [_decided(home) for home in homes]
    for code in languages:
        for home, codes in zip(homes, there, strict=True):
            if code not in codes:
                raise InputError(f"{code} has not been decided in {home.root}: run it there, or leave it out.")
    shared = sorted(set(languages) or there[0] & there[1])
    if not shared:
        raise InputError(f"{homes[0].root} and {homes[1].root} have no language in common: nothing can be compared.")
    _print([compare_language(code, *(_nested(home, code) for home in homes)) for code in shared], first, second)
    left_out = sorted(there[0] ^ there[1]) if not languages else []
    if left_out:
        click.echo(f"in one run only, left out: {', '.join(left_out)}")
    return 0


def _decided(home: Home) -> set[str]:
    files = list((home.artifacts / "thresholds").glob("*.json"))
    if not files:
        raise InputError(f"{home.root} holds no run: name the home folder (POLAR_HOME) of a finished `polar run`.")
    return {file.stem for file in files}


def _nested(home: Home, code: str) -> pd.DataFrame:
    decision = read_record(home.artifacts / "thresholds" / f"{code}.json", Decision)
    table = nested_table(decision, pd.read_parquet(home.artifacts / "raw_posts" / f"{code}.parquet"))
    if confusion(table["label"].to_numpy(dtype=int), table["prediction"].to_numpy()) != decision.confusion:
        raise InputError(
            f"{home.root}: the decision of {code} was made from other posts than raw_posts holds now: run {code} again."
        )
    return table


def _print(found: list[Comparison], first: Path, second: Path) -> None:
    table = Table(
        title=f"A {first}\nB {second}\nnested out-of-fold macro-F1 on the posts of both, with the paired 95% interval of B - A",
        title_justify="left",
        box=SIMPLE_HEAD,
        collapse_padding=True,
    )
    for column in ("language", "posts", "A", "B", "B - A", "interval", "verdict"):
        table.add_column(column, justify="left" if column in ("language", "verdict") else "right", no_wrap=True)
    for item in found:
        table.add_row(
            item.language, str(item.posts), f"{item.first:.4f}", f"{item.second:.4f}", *_cells(item.difference)
        )  # fmt: skip
    mean = overall(found)
    sides = [sum(getattr(item, side) for item in found) / len(found) for side in ("first", "second")]
    table.add_section()
    table.add_row("mean", f"of {len(found)}", *(f"{side:.4f}" for side in sides), *_cells(mean))
    console = Console()
    Console(width=max(console.width, 100)).print(table)


def _cells(difference: Interval) -> tuple[str, str, str]:
    return f"{difference.value:+.4f}", f"{difference.low:+.4f} to {difference.high:+.4f}", verdict(difference)
