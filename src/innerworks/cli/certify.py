"""`innerworks certify`: does this model compute, on this machine, what would be measured?"""

import json
import math
from typing import TYPE_CHECKING, Annotated

import typer

from innerworks.cli.options import Json

if TYPE_CHECKING:
    from innerworks.model.certificate import Certificate


def certify(
    model: Annotated[
        str,
        typer.Argument(metavar="[MODEL]", help="A specimen, a local folder, or a hub id such as HuggingFaceTB/SmolLM2-135M."),
    ] = "smollm2-135m-instruct",
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    as_json: Json = False,
) -> None:
    """Check that what is measured in a model is what it computes, and show every check.

    Every model is checked like this when it is loaded, and refused if a check fails; this shows the numbers. Each compares two
    things that must agree, such as the logits with and without hooks, or the stream and the sum of what was added to it, on
    two short random texts that are longer than any sliding window. Exit code: 0 all passed, 1 some failed, 2 bad usage.

    \b
    difference   the largest one seen, relative to the size of what is compared (0 is bit for bit)
    allowed      0 where the numbers must be the same bits; otherwise room for rounding, more in bfloat16 and float16
    left out     what a family has no such thing of, and why

    \b
    Examples:
      innerworks certify                                    the default specimen
      innerworks certify ./my-model --dtype bfloat16        as it will be run
      innerworks certify EleutherAI/pythia-70m --json       for machines

    A failure after adding a family means that its adapter names a wrong module: docs/families.md says which check shows what.
    """
    from time import perf_counter

    from innerworks.cli.screen import errors, waiting
    from innerworks.errors import CertificateFailed
    from innerworks.model import Certificate, load

    began = perf_counter()
    with waiting(f"Loading {model} and checking it"):
        try:
            loaded = load(
                model, revision=revision, device=device, dtype=dtype, progress=lambda step: errors.print(step, style="dim")
            )
            certificate = loaded.certificate
        except CertificateFailed as failure:
            certificate = failure.certificate
            if certificate is None:
                raise
    assert isinstance(certificate, Certificate)
    seconds = perf_counter() - began
    if as_json:
        typer.echo(json.dumps(_as_data(certificate, seconds)))
    else:
        _show(certificate, seconds)
    raise typer.Exit(1 if certificate.failed else 0)


def _as_data(certificate: "Certificate", seconds: float) -> dict[str, object]:
    """The certificate for machines; a difference that is no number is null."""
    checks = [
        {
            "what": check.what,
            "difference": check.difference if math.isfinite(check.difference) else None,
            "allowed": check.allowed,
            "passed": check.passed,
        }
        for check in certificate.checks
    ]
    return {
        "model": certificate.model,
        "dtype": certificate.dtype,
        "passed": not certificate.failed,
        "checks": checks,
        "left_out": list(certificate.left_out),
        "seconds": round(seconds, 3),
    }


def _show(certificate: "Certificate", seconds: float) -> None:
    from rich.table import Table

    from innerworks.cli.screen import output

    table = Table(box=None, pad_edge=False, title=f"{certificate.model} in {certificate.dtype}", title_justify="left")
    table.add_column("check")
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("allowed", justify="right", no_wrap=True)
    table.add_column("passed", no_wrap=True)
    for check in certificate.checks:
        difference = f"{check.difference:.2g}" if math.isfinite(check.difference) else "no number"
        table.add_row(check.what, difference, f"{check.allowed:.2g}", "yes" if check.passed else "NO")
    output.print(table)
    for one in certificate.left_out:
        output.print(f"left out: {one}")
    failed, every = len(certificate.failed), len(certificate.checks)
    said = f"{failed} of {every} checks failed: measurements on it would be wrong." if failed else f"All {every} checks passed."
    output.print(f"{said} {seconds:.1f} s, loading included.")
