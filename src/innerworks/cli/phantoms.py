"""`innerworks phantoms`: run every instrument over models whose inner workings are known."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from innerworks.cli.options import Json, Seed


def phantoms(
    draws: Annotated[int, typer.Option(metavar="N", help="Phantoms per architecture (gpt2 and llama) and kit.")] = 5,
    kit: Annotated[list[str] | None, typer.Option(help="Only this kit of parts; may be given again.  [default: all]")] = None,
    amplitude: Annotated[float, typer.Option(help="How strongly the planted parts work, from 0 to 1.")] = 1.0,
    noise: Annotated[float, typer.Option(help="Noise on every weight, in units of the matrix's RMS.")] = 0.0,
    curves: Annotated[bool, typer.Option("--curves", help="Recall over strength and noise instead: ten levels each.")] = False,
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="DIR", help="Instead, mix patterns of every kind into the heads of this atlas' model."),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --curves or --into: draw the curves, as an HTML page.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Calibrate: scan hand-written models and print what was planted against what was found.

    Rows are what a head or a neuron truly is (planted, a decoy that only looks alike, a filler), columns the labels it was given.
    """
    from innerworks.cli.screen import ScanProgress, output
    from innerworks.errors import UsageError
    from innerworks.phantoms.calibrate import calibrate
    from innerworks.phantoms.curves import curves as recall_curves
    from innerworks.phantoms.kits import KITS, kit_of
    from innerworks.phantoms.spike import spike_into
    from innerworks.scan import Step

    if draws < 1:
        raise UsageError(f"--draws {draws}: at least 1.")
    if figure is not None and not (curves or into):
        raise UsageError("--figure goes with --curves or --into: there is no curve otherwise.")
    if figure is not None and (figure.is_dir() or not os.access(figure.parent, os.W_OK)):
        raise UsageError(f"--figure {figure}: no file can be written there. Give one in a folder that exists.")
    kits = tuple(kit_of(one).name for one in kit or KITS)
    with ScanProgress() as progress:
        if into is not None:
            found = spike_into(
                into, seed=seed, progress=lambda done, total: progress(Step(stage="doses", done=done, total=total, unit="doses"))
            )
        elif curves:
            found = recall_curves(draws=draws, seed=seed, kits=kits, progress=progress)
        else:
            found = calibrate(draws=draws, amplitude=amplitude, noise=noise, seed=seed, kits=kits, progress=progress)
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
    else:
        output.print(found.in_words())
    if figure is not None:
        _draw(found.as_dict()["recall"], figure)


def _draw(rows: list[dict[str, object]], path: Path) -> None:
    from innerworks.show.figures.recall import recall

    overs = list(dict.fromkeys(str(row["over"]) for row in rows))
    pages = [
        recall(rows, over=over).to_html(full_html=False, include_plotlyjs="inline" if number == 0 else False)
        for number, over in enumerate(overs)
    ]
    path.write_text("<!doctype html><meta charset='utf-8'><title>recall</title>" + "\n".join(pages), encoding="utf-8")
