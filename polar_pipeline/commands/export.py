"""`polar export`: the report's tables and figures, and all errors, as files."""

from pathlib import Path

import click

from polar_pipeline.commands.options import examples, project_options


@click.command(epilog=examples("polar export", "polar export --profile my.yaml --to tables/"))
@project_options
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the files go; default: export/ beside the report.",
)
def export(profile: str, folder: Path | None) -> None:
    """Write the report's tables (CSV, LaTeX), its figures (PNG, SVG) and all errors (CSV) of finished languages."""
    from polar_pipeline.defs.lineage import load_results
    from polar_pipeline.defs.project import Project
    from polar_pipeline.report.evidence import read_test_labels
    from polar_pipeline.report.export import export_report

    project = Project.load(profile)
    results = load_results(project)
    labels = {code: read_test_labels(project.data, code, project.card) for code in results.present}
    target = folder or project.results.root / "export"
    files = export_report(target, results, labels, project.profile)
    click.echo(f"{len(files)} files of {len(results.present)} languages in {target}; README.txt there explains them.")
    for code, reason in results.absent.items():
        click.echo(f"left out: {code}: {reason}", err=True)
