"""The report as files for papers and spreadsheets: tables, figures, all errors. Same results, same bytes."""

import csv
from pathlib import Path

import pandas as pd

from polar_pipeline import __version__
from polar_pipeline.errors import InputError
from polar_pipeline.report.comparison import comparable_reference
from polar_pipeline.report.diagnostics import errors
from polar_pipeline.report.evidence import Results, english_name, judged_posts, language_evidence, with_test_labels
from polar_pipeline.report.page import template
from polar_pipeline.report.plots import overview_plot, reliability_plot, threshold_plot
from polar_pipeline.report.tables import ReportTable, report_tables
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.files import write_atomic

TestLabels = dict[str, "pd.Series[int] | None"]


def export_report(folder: Path, results: Results, test_labels: TestLabels, profile: Profile) -> list[Path]:
    """Write tables, figures, errors.csv and README.txt into `folder`, over files of these names. Returns their paths.

    `test_labels` are by language code, as `read_test_labels` gives them. Raises InputError if `folder` cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}): give another folder with --to.") from error
    evidence = [
        language_evidence(found, test_labels.get(code), profile.report, profile.seed)
        for code, found in results.present.items()
    ]
    reference = comparable_reference(profile)
    tables = report_tables(evidence, reference)
    contents: dict[str, bytes] = {}
    for name, table in tables.items():
        contents[f"tables/{name}.csv"] = _csv(table.frame)
        contents[f"tables/{name}.tex"] = _latex(table.frame)
    plots = {"overview": overview_plot(evidence, reference)}
    plots |= {f"{item.language}_threshold": threshold_plot(item) for item in evidence}
    plots |= {f"{item.language}_reliability": reliability_plot(item) for item in evidence}
    for name, plot in plots.items():
        contents[f"figures/{name}.png"], contents[f"figures/{name}.svg"] = plot.png(), plot.svg()
    contents["errors.csv"] = _csv(all_errors(results, test_labels))
    contents["README.txt"] = _readme(results, tables, profile).encode("utf-8")
    return [write_atomic(folder / name, content) for name, content in contents.items()]


def all_errors(results: Results, test_labels: TestLabels) -> pd.DataFrame:
    """The errors of all languages: `diagnostics.ERROR_COLUMNS`."""
    found = [
        errors(code, with_test_labels(judged_posts(item), test_labels.get(code)))
        for code, item in results.present.items()
    ]
    return pd.concat(found, ignore_index=True)


def _csv(frame: pd.DataFrame) -> bytes:
    """UTF-8 CSV with six decimals. All text is quoted, so that line breaks in it survive."""
    rounded = frame.round(6)
    return rounded.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).encode("utf-8")


def _latex(frame: pd.DataFrame) -> bytes:
    decimals = "%.4f" if "difference" in frame else "%.3f"
    return frame.to_latex(index=False, escape=True, na_rep="--", float_format=decimals).encode("utf-8")


def _readme(results: Results, tables: dict[str, ReportTable], profile: Profile) -> str:
    text: str = template("export_readme.txt").render(
        profile=profile,
        version=__version__,
        present=[english_name(code) for code in results.present],
        absent=[(english_name(code), reason) for code, reason in results.absent.items()],
        tables=tables,
    )
    return text
