"""`innerworks collect`: activations of any sites over any corpus, to files that can be larger than memory."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from innerworks.cli.options import Json

if TYPE_CHECKING:
    from innerworks.model.collect import Activations

_LIKE_A_SITE = re.compile(r"L[\d*].*|blocks\..*|ln_final\..*|embed|norm_scale|logits")


def collect(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write.")],
    first: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A model, as for scan; may be left out for the default specimen.")
    ] = None,
    others: Annotated[
        list[str] | None, typer.Argument(metavar="SITE", help="One or more sites, such as L12.resid_post or 'L*.mlp_out'.")
    ] = None,
    corpus: Annotated[
        str, typer.Option(help="builtin, builtin:long, or file:PATH (.jsonl, .txt, a folder of .txt).")
    ] = "builtin",
    limit: Annotated[int | None, typer.Option(metavar="N", help="Read at most N documents per domain.")] = None,
    window: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens the model sees at once.  [default: 512, or what the model allows]")
    ] = None,
    positions: Annotated[str, typer.Option(help="all, or last: only the last token of each document.")] = "all",
    skip_first: Annotated[bool, typer.Option("--skip-first", help="Leave out the first token of each window.")] = False,
    stored: Annotated[
        str | None, typer.Option("--store", metavar="TYPE", help="Stored as float32, bfloat16 or float16.  [default: as --dtype]")
    ] = None,
    shard: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens per file.  [default: 16384, or fewer for many sites]")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens per forward.  [default: 4096, or fewer likewise]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the collection in DIR.")] = False,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="What the model computes in: float32, bfloat16 or float16.")] = "float32",
    as_json: Json = False,
) -> None:
    """Collect activations: one row per token, in safetensors files with an index, whatever the size of the corpus.

    A site is a place in the model: L12.resid_post (the stream), L12.mlp_out, L12.attn_out, L12.neurons, L5H3.z (a head), embed;
    'L*.resid_post' is every layer's (quote the star). Stopped halfway, the same command goes on where it was.

    \b
    Examples:
      innerworks collect L12.resid_post -o acts                          the default specimen on the built-in corpus
      innerworks collect ./my-model 'L*.mlp_out' -o acts --store bfloat16
      innerworks collect L20.resid_post -o last --corpus file:prompts.jsonl --positions last

    \b
    Then in Python:
      activations = innerworks.Activations.open("acts")
      activations["L12.resid_post"][1000:2000], activations.tokens[1000:2000]
    """
    from innerworks.cli.screen import ScanProgress, errors, waiting
    from innerworks.errors import UsageError
    from innerworks.model import load
    from innerworks.model.collect import Headway
    from innerworks.model.collect import collect as run_collect
    from innerworks.scan import Step
    from innerworks.text import Corpus

    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: at least 1.")
    model, sites = _told_apart([*([first] if first else []), *(others or [])])
    with waiting(f"Loading {model} and checking it"):
        loaded = load(model, revision=revision, device=device, dtype=dtype, progress=lambda step: errors.print(step, style="dim"))
        read = Corpus.open(corpus)
        read = read.sample(limit) if limit is not None else read
    try:
        with ScanProgress() as bar:

            def show(headway: Headway) -> None:
                bar(Step(stage="collecting", done=headway.done, total=headway.total, unit="tokens"))

            activations = run_collect(
                loaded,
                read,
                sites,
                out,
                dtype=stored,
                window=window,
                positions=positions,
                skip_first=skip_first,
                shard_tokens=shard,
                batch_tokens=batch,
                force=force,
                progress=show,
            )
    except KeyboardInterrupt:
        says = f"\nInterrupted. What was collected is kept; the same command{' without --force' * force} goes on ({out})."
        typer.echo(says, err=True)
        raise typer.Exit(1) from None
    typer.echo(json.dumps(_summary(activations)) if as_json else _in_words(activations))


def _told_apart(words: list[str]) -> tuple[str, list[str]]:
    """The model and the sites: the first word is the model unless it is a site (and no folder)."""
    from innerworks.errors import UsageError
    from innerworks.model.specimen import DEFAULT

    if not words:
        raise UsageError("Which sites? For instance: innerworks collect L12.resid_post -o acts")
    if _LIKE_A_SITE.fullmatch(words[0]) and not Path(words[0]).is_dir():
        return DEFAULT, words
    if len(words) == 1:
        raise UsageError(f"Which sites of {words[0]}? For instance: innerworks collect {words[0]} L5.resid_post -o acts")
    return words[0], words[1:]


def _summary(activations: "Activations") -> dict[str, object]:
    """What was collected, for machines."""
    return {
        "activations": str(activations.path),
        "rows": len(activations),
        "documents": len(activations.documents),
        "dtype": activations.settings["dtype"],
        "sites": {site: list(activations[site].shape) for site in activations.sites},
        "shards": len(activations.index["shards"]),
        "bytes": sum(file.stat().st_size for file in activations.path.iterdir()),
    }


def _in_words(activations: "Activations") -> str:
    """What was collected, for people."""
    said = [f"{site:<16} {list(activations[site].shape)} {activations.settings['dtype']}" for site in activations.sites]
    sites = [*said[:6], *([f"and {len(said) - 6} more sites"] if len(said) > 6 else [])]
    size = sum(file.stat().st_size for file in activations.path.iterdir())
    return (
        f"{len(activations):,} rows of {len(activations.documents):,} documents, {size / 1e6:,.1f} MB in "
        f"{len(activations.index['shards'])} shards\n"
        + "\n".join(f"  {line}" for line in sites)
        + f"\n\nFolder:    {activations.path}"
        f'\nIn Python: innerworks.Activations.open("{activations.path}")["{activations.sites[0]}"][:100]'
    )
