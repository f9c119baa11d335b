"""`innerworks lens`: which token would each layer name, at each position of a prompt?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from innerworks.cli.options import Json, Seed

if TYPE_CHECKING:
    from innerworks.model import Model
    from innerworks.residual import TunedLens


def lens(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="What the model reads, in quotes; none with --train.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="A specimen, a local folder, or a hub id, as for scan.")
    ] = "smollm2-135m-instruct",
    site: Annotated[
        str | None,
        typer.Option(help="The stream: resid_post (leaving a layer), resid_pre (entering it), resid_mid.  [default: resid_post]"),
    ] = None,
    top: Annotated[int, typer.Option(metavar="K", help="Tokens in each cell.")] = 1,
    tuned: Annotated[Path | None, typer.Option("--tuned", metavar="FILE", help="Read with this tuned lens.")] = None,
    train: Annotated[
        Path | None, typer.Option("--train", metavar="FILE", help="Train a tuned lens on --corpus and write it here; no PROMPT.")
    ] = None,
    corpus: Annotated[
        str, typer.Option(help="What --train reads: builtin, or file:PATH (.jsonl, .txt, a folder of .txt).")
    ] = "builtin",
    positions: Annotated[
        int | None, typer.Option(metavar="N", help="--train: positions of the text to learn from.  [default: 1024]")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page, too, that opens without a network.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Read the residual stream: which token would the model name, if it stopped at this layer?

    The stream at each layer and position goes through the model's own final norm and unembedding (the logit lens). A row is a
    layer, the last one on top: there it is what the model says. A cell holds the likeliest next token, its probability, and the
    entropy of all in nats: 0 where the layer is sure, about 10.8 where all of 49,152 tokens are alike.

    Early layers of many models speak another basis: a low probability there does not say that the answer is not in the stream. A
    tuned lens first translates each layer's stream by an affine map, trained to come close to what the model says in the end.

    --train FILE trains one for this model, which costs minutes (positions of the text are drawn, not all are learned from),
    writes it to FILE (safetensors), and prints how far both lenses are from the model's last word on documents that training did
    not see. A layer whose map is not better for sure stays as in the logit lens.

    \b
    Examples:
      innerworks lens "The capital of France is"
      innerworks lens "The capital of France is" --top 3 --html lens.html
      innerworks lens "Once upon a time" --model ./my-model --site resid_mid
      innerworks lens --train smollm2.lens                                    some minutes on two cores
      innerworks lens "The capital of France is" --tuned smollm2.lens
      innerworks lens --train my.lens --model ./my-model --corpus file:texts.jsonl --positions 20000

    \b
    In a notebook:
      from innerworks import residual
      residual.lens(model, "The capital of France is")
    """
    from innerworks.cli.screen import errors, output, waiting
    from innerworks.model import load
    from innerworks.residual import TunedLens
    from innerworks.residual import lens as read
    from innerworks.show.prompt import page

    _check(prompt, top, tuned, train, html, positions)
    for path, option in ((html, "--html"), (train, "--train")):
        if path is not None:
            page.writable(path, option)
    with waiting(f"Loading {model} and checking it"):
        loaded = load(model, revision=revision, device=device, dtype=dtype, progress=lambda step: errors.print(step, style="dim"))
    if train is not None:
        _say(_trained(loaded, train, corpus, site, positions, seed), train, as_json)
        return
    assert prompt is not None
    found = read(loaded, prompt, kind=site, k=top, tuned=None if tuned is None else TunedLens.open(tuned, loaded))
    if html is not None:
        page.write(html, found.html())
    if as_json:
        typer.echo(json.dumps(found.as_dict(), ensure_ascii=False))
        return
    output.print(found)
    if html is not None:
        typer.echo(f"\nPage: {html}")


def _check(
    prompt: str | None, top: int, tuned: Path | None, train: Path | None, html: Path | None, positions: int | None
) -> None:
    """Say what does not go together before anything is loaded."""
    from innerworks.errors import UsageError

    if train is None and prompt is None:
        raise UsageError('Which prompt? For instance: innerworks lens "The capital of France is"')
    if train is None and positions is not None:
        raise UsageError("--positions goes with --train.")
    if train is not None and (prompt is not None or tuned is not None or html is not None):
        raise UsageError("--train reads a corpus: no PROMPT, --tuned or --html goes with it.")
    if top < 1:
        raise UsageError(f"--top {top}: at least 1.")


def _trained(model: "Model", path: Path, corpus: str, site: str | None, positions: int | None, seed: int) -> "TunedLens":
    """Train a lens and write it."""
    from innerworks.cli.screen import ScanProgress, errors
    from innerworks.residual import tune
    from innerworks.residual.tuning import POSITIONS
    from innerworks.scan import Step

    try:
        with ScanProgress() as bar:
            lens = tune(
                model,
                corpus,
                kind=site or "resid_post",
                positions=POSITIONS if positions is None else positions,
                seed=seed,
                progress=lambda done, total: bar(Step(stage="learning", done=done, total=total, unit="texts")),
            )
    except KeyboardInterrupt:
        errors.print("\nInterrupted: nothing was written.")
        raise typer.Exit(1) from None
    lens.save(path)
    return lens


def _say(lens: "TunedLens", path: Path, as_json: bool) -> None:
    """How far both lenses are from the model's last word, layer by layer."""
    from dataclasses import asdict

    from innerworks.cli.screen import output

    if as_json:
        held_out = [asdict(one) for one in lens.held_out]
        typer.echo(json.dumps({"lens": str(path), "kind": lens.kind, "trained_on": dict(lens.trained_on), "held_out": held_out}))
        return
    output.print(_table(lens))
    about = lens.trained_on
    early = ", stopped early" if about["stopped_early"] else ""
    typer.echo(
        f"\nLearned from {about['positions']:,} positions of {about['documents']['training']} documents of {about['corpus']} "
        f"({about['steps']} steps{early}); measured on {about['documents']['test']} others."
        f'\nLens: {path}\nRead with it: innerworks lens "The capital of France is" --tuned {path}'
    )


def _table(lens: "TunedLens") -> Any:
    from rich.table import Table

    from innerworks.show import numbers

    title = "From the model's last word, KL in nats on held-out documents"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for name in ("layer", "logit lens", "tuned lens", "gain [95 %]", "map"):
        table.add_column(name, justify="left" if name in ("layer", "map") else "right", no_wrap=True)
    for one in lens.held_out:
        gain = numbers.estimate(one.gain, one.gain_low, one.gain_high) if one.tuned else numbers.NOTHING
        both = (numbers.number(one.logit_lens), numbers.number(one.tuned_lens))
        table.add_row(one.site.partition(".")[0], *both, gain, "tuned" if one.tuned else "identity")
    return table
