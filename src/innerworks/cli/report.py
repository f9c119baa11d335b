"""`innerworks report`: write the report of an atlas again."""

import typer

from innerworks.cli.options import Folder


def report(folder: Folder) -> None:
    """Write report.html of a finished atlas again, for instance after an update of innerworks."""
    from innerworks.atlas import Atlas
    from innerworks.atlas.schema import REPORT
    from innerworks.show.report import write

    atlas = Atlas.open(folder)
    write(atlas, folder / REPORT)
    typer.echo(f"Report: {folder / REPORT}")
