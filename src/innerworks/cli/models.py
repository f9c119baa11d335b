"""`innerworks models`: what can be scanned."""

from innerworks.cli.options import Json


def models(as_json: Json = False) -> None:
    """List the families of models that can be scanned, and the specimens that can be fetched by name."""
    from rich.console import Console
    from rich.table import Table

    from innerworks.model.adapters import FAMILIES
    from innerworks.model.specimen import SPECIMENS, is_cached

    console = Console(highlight=False)
    if as_json:
        specimens = {name: {"says": one.says, "cached": is_cached(name)} for name, one in SPECIMENS.items()}
        console.print_json(data={"families": {name: list(one.classes) for name, one in FAMILIES.items()}, "specimens": specimens})
        return
    table = Table("family", "classes", "refused options", title="Families", title_justify="left", box=None, pad_edge=False)
    for name, adapter in FAMILIES.items():
        table.add_row(name, ", ".join(adapter.classes), ", ".join(adapter.refused) or "none")
    console.print(table)
    specimens = Table("name", "what it is", "here?", title="\nSpecimens", title_justify="left", box=None, pad_edge=False)
    for name, one in SPECIMENS.items():
        specimens.add_row(name, one.says, "yes" if is_cached(name) else f"no ({one.size})")
    console.print(specimens)
