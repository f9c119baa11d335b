"""`innerworks report`: write the report of an atlas again."""

from innerworks.cli.options import Folder


def report(folder: Folder) -> None:
    """Write report.html of a finished atlas again, for instance after an update of innerworks."""
    from rich.console import Console

    from innerworks.atlas import Atlas
    from innerworks.atlas.schema import REPORT
    from innerworks.show.report import write

    atlas = Atlas.open(folder)
    write(atlas, folder / REPORT)
    Console(highlight=False).print(f"Report: {folder / REPORT}", soft_wrap=True)
