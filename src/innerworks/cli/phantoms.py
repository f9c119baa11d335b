"""`innerworks phantoms`: run every instrument over models whose inner workings are known."""

from typing import Annotated

import typer

from innerworks.cli.options import Json, Seed


def phantoms(
    draws: Annotated[int, typer.Option(metavar="N", help="Phantoms per architecture (gpt2 and llama).")] = 5,
    amplitude: Annotated[float, typer.Option(help="How strongly the planted parts work, from 0 to 1.")] = 1.0,
    noise: Annotated[float, typer.Option(help="Noise on every weight, in units of the matrix's RMS.")] = 0.0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Calibrate: scan hand-written models and print what was planted against what was found.

    Rows are what a head truly is (planted parts, decoys that only look alike, fillers), columns are the labels it was given.
    """
    from innerworks.cli.screen import ScanProgress, output
    from innerworks.errors import UsageError
    from innerworks.phantoms.calibrate import calibrate

    if draws < 1:
        raise UsageError(f"--draws {draws}: at least 1.")
    with ScanProgress() as progress:
        found = calibrate(draws=draws, amplitude=amplitude, noise=noise, seed=seed, progress=progress)
    if as_json:
        output.print_json(data=found.as_dict())
    else:
        output.print(found.in_words())
