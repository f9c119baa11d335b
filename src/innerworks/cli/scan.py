"""`innerworks scan`: a model in, an atlas and a report out."""

import json
from pathlib import Path
from typing import Annotated

import typer

from innerworks.cli.options import Json, Seed


def scan(
    model: Annotated[
        str,
        typer.Argument(metavar="[MODEL]", help="A specimen, a local folder, or a hub id such as HuggingFaceTB/SmolLM2-135M."),
    ] = "smollm2-135m-instruct",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="The atlas' folder.  [default: MODEL.atlas]")
    ] = None,
    depth: Annotated[str, typer.Option(help="quick (minutes), standard, or full (as long as it takes).")] = "standard",
    only: Annotated[
        str | None, typer.Option(metavar="CHAPTERS", help="Only these: heads, neurons, residual.  [default: all]")
    ] = None,
    corpus: Annotated[str, typer.Option(help="builtin, or file:PATH (.jsonl, .txt, a folder of .txt).")] = "builtin",
    limit: Annotated[int | None, typer.Option(metavar="N", help="Read at most N documents per domain.")] = None,
    only_plan: Annotated[bool, typer.Option("--plan", help="Say what the scan would cost, and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted scan in DIR.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the atlas in DIR.")] = False,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Scan a model: type its attention heads, feed-forward neurons and the stream between them, test by ablation, write an atlas
    and a report.

    Without MODEL, the default specimen is fetched (93 MB, once) and scanned. An interrupted scan goes on with --resume.

    \b
    Examples:
      innerworks scan                                  the default specimen, thoroughly (first see --plan)
      innerworks scan --depth quick                    less of it, in a few minutes on two cores
      innerworks scan ./my-model -o my.atlas --plan    what would it cost?
    """
    from innerworks.cli.screen import ScanProgress, errors, output, waiting
    from innerworks.errors import UsageError
    from innerworks.model import load
    from innerworks.scan import plan, prepare
    from innerworks.scan import scan as run_scan
    from innerworks.scan.studies import studies
    from innerworks.show.page import summary
    from innerworks.text import Corpus

    chapters = None if only is None else [name.strip() for name in only.split(",")]
    studies(chapters)  # refuses unknown ones before anything is loaded
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: at least 1.")
    with waiting(f"Loading {model} and checking it"):
        loaded = load(model, revision=revision, device=device, dtype=dtype, progress=lambda step: errors.print(step, style="dim"))
        read = Corpus.open(corpus)
        read = read.sample(limit) if limit is not None else read
    if only_plan:
        reading, _, chosen = prepare(loaded, corpus=read, depth=depth, seed=seed)
        estimate = plan(loaded, reading, chosen, chapters)
        typer.echo(json.dumps(estimate.as_dict()) if as_json else estimate.in_words())
        return
    folder = out or Path(f"{loaded.name.replace('/', '--')}.atlas")
    try:
        with ScanProgress() as progress:
            atlas = run_scan(
                loaded,
                out=folder,
                corpus=read,
                depth=depth,
                only=chapters,
                seed=seed,
                resume=resume,
                force=force,
                progress=progress,
                show_plan=lambda estimate: errors.print(estimate.in_words()),
            )
    except KeyboardInterrupt:
        says = f"\nInterrupted. What was done is kept; go on with the same command and --resume (atlas: {folder})."
        typer.echo(says, err=True)
        raise typer.Exit(1) from None
    if as_json:
        labels = atlas.labels.select("behaviour", "site", "rung", "q", "note").to_dicts()
        typer.echo(json.dumps({"atlas": str(folder), "report": str(folder / "report.html"), "labels": labels}))
        return
    output.print(summary(atlas))
    typer.echo(
        f"\nAtlas:    {folder}\nReport:   {folder / 'report.html'}  (open it in any browser)\n"
        f"One part: innerworks show {folder} {atlas.labels['site'][0] if len(atlas.labels) else 'L0H0'}"
    )
