"""`innerworks lens`: which token would each layer name, at each position of a prompt?"""

import json
from pathlib import Path
from typing import Annotated

import typer

from innerworks.cli.options import Json


def lens(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the model reads, in quotes.")],
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="A specimen, a local folder, or a hub id, as for scan.")
    ] = "smollm2-135m-instruct",
    site: Annotated[
        str, typer.Option(help="The stream that is read: resid_post (leaving a layer), resid_pre (entering it), resid_mid.")
    ] = "resid_post",
    top: Annotated[int, typer.Option(metavar="K", help="Tokens in each cell.")] = 1,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page, too, that opens without a network.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    as_json: Json = False,
) -> None:
    """Read the residual stream with the logit lens: which token would the model name, if it stopped at this layer?

    The stream at each layer and position goes through the model's own final norm and unembedding. A row is a layer, the last
    one on top: there it is what the model says. A cell holds the likeliest next token, its probability, and the entropy of all
    in nats: 0 where the layer is sure, about 10.8 where all of 49,152 tokens are alike.

    Early layers of many models speak another basis: a low probability there does not say that the answer is not in the stream.

    \b
    Examples:
      innerworks lens "The capital of France is"
      innerworks lens "The capital of France is" --top 3 --html lens.html
      innerworks lens "Once upon a time" --model ./my-model --site resid_mid
      innerworks lens "Once upon a time" --json | jq '.places[0]'

    \b
    In a notebook:
      from innerworks import residual
      residual.lens(model, "The capital of France is")
    """
    from innerworks.cli.screen import errors, output, waiting
    from innerworks.errors import UsageError
    from innerworks.model import load
    from innerworks.residual import lens as read
    from innerworks.show.prompt import page

    if top < 1:
        raise UsageError(f"--top {top}: at least 1.")
    if html is not None:
        page.writable(html, "--html")
    with waiting(f"Loading {model} and checking it"):
        loaded = load(model, revision=revision, device=device, dtype=dtype, progress=lambda step: errors.print(step, style="dim"))
    found = read(loaded, prompt, kind=site, k=top)
    if html is not None:
        page.write(html, found.html())
    if as_json:
        typer.echo(json.dumps(found.as_dict(), ensure_ascii=False))
        return
    output.print(found)
    if html is not None:
        typer.echo(f"\nPage: {html}")
