"""`innerworks attribute`: which parts of the model gave a token its logit?"""

import json
from pathlib import Path
from typing import Annotated

import typer

from innerworks.cli.options import Json


def attribute(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the model reads, in quotes.")],
    answer: Annotated[str, typer.Option("--answer", metavar="TOKEN", help="The token whose logit is explained.")],
    foil: Annotated[
        str | None, typer.Option("--foil", metavar="TOKEN", help="Explain the difference to this token's logit instead.")
    ] = None,
    by: Annotated[str, typer.Option(help="What is split into its parts: component, head, neuron or source.")] = "component",
    top: Annotated[int, typer.Option(metavar="N", help="List the N strongest parts; sums are over all.")] = 20,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="A specimen, a local folder, or a hub id, as for scan.")
    ] = "smollm2-135m-instruct",
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page, too, that opens without a network.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    as_json: Json = False,
) -> None:
    """Take the logit of the next token apart: how much of it did each part of the model write?

    Direct logit attribution: the final stream is a sum of what all parts wrote. With the scale of the final norm held at what it
    was, so is a logit. Shares add up to the model's own (before any soft cap); where they miss it, that is an error. With a foil
    they are shares of the difference between two logits, which leaves out whatever raises all tokens alike.

    A token is written as it stands in text: words inside a text begin with a space, so --answer " Paris". What is not exactly
    one token is refused, with its pieces.

    \b
    component   attention and feed-forward of each layer, and the embedding
    head        attention split into its heads
    source      heads split into the tokens they read
    neuron      feed-forwards split into their neurons

    \b
    Examples:
      innerworks attribute "The capital of France is" --answer " Paris" --foil " Rome"
      innerworks attribute "The capital of France is" --answer " Paris" --by head --top 10
      innerworks attribute "The keys to the cabinet" --answer " are" --foil " is" --by source --html keys.html

    A share is no effect: later parts read earlier ones, may undo them or stand in for them. Ablate to find out (iw.ablate).
    """
    from innerworks.cli.screen import errors, output, waiting
    from innerworks.errors import UsageError
    from innerworks.model import load
    from innerworks.model.readout import way
    from innerworks.residual import shares
    from innerworks.show.prompt import page

    if top < 1:
        raise UsageError(f"--top {top}: at least 1.")
    split = way(by)
    if html is not None:
        page.writable(html, "--html")
    with waiting(f"Loading {model} and checking it"):
        loaded = load(model, revision=revision, device=device, dtype=dtype, progress=lambda step: errors.print(step, style="dim"))
    found = shares(loaded, prompt, answer, foil, by=split, n=top)
    if html is not None:
        page.write(html, found.html())
    if as_json:
        typer.echo(json.dumps(found.as_dict(), ensure_ascii=False))
        return
    output.print(found)
    if html is not None:
        typer.echo(f"\nPage: {html}")
