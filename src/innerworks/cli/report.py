"""`innerworks report`: write the report of an atlas again."""

from innerworks.cli.options import Folder


def report(folder: Folder) -> None:
    """Write report.html of a finished atlas again, for instance after an update of innerworks."""
    from rich.console import Console

    from innerworks.atlas import Atlas
    from innerworks.show.report import write

    Console(highlight=False).print(f"Report: {write(Atlas.open(folder))}", soft_wrap=True)
