"""`innerworks stream`: text without end at constant memory, and what each way of forgetting costs."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from innerworks.cli.options import Seed

SLOWER = 4.5  # a token streamed beside others against one read in a whole window, roughly; for the forecast alone

if TYPE_CHECKING:
    from innerworks.heads.streaming import StreamingLosses
    from innerworks.model import Model


def stream(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] PROMPT", help="A model, as for scan (left out: the default specimen), and what it goes on from."
        ),
    ] = None,
    sinks: Annotated[int, typer.Option(metavar="N", help="First tokens that stay in the cache.")] = 4,
    window: Annotated[int, typer.Option(metavar="N", help="Latest tokens that stay, the newest included.")] = 252,
    tokens: Annotated[int | None, typer.Option(metavar="N", help="Stop after N tokens.  [default: go on until Ctrl-C]")] = None,
    temperature: Annotated[float, typer.Option(help="0: always the most likely token; 1: drawn as the model says.")] = 0.0,
    compare: Annotated[
        bool, typer.Option("--compare", help="Measure what is lost without sinks, with 1, 2, 4, 8; no PROMPT.")
    ] = False,
    corpus: Annotated[
        str, typer.Option(help="What --compare reads: builtin, or file:PATH (.jsonl, .txt, a folder).")
    ] = "builtin",
    limit: Annotated[int, typer.Option(metavar="N", help="--compare: at most N texts per domain.")] = 2,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    seed: Seed = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="For machines: one JSON object per token and line; with --compare one in all.")
    ] = False,
) -> None:
    """Let a model go on and on, keeping only the first few tokens (the sinks) and the latest ones. Ctrl-C ends it.

    In many models attention rests on a text's first tokens whatever they say. A cache of the latest tokens alone loses that
    resting place once it is full; with a few first tokens kept, the text goes on at constant memory. What has left the window is
    forgotten. Positions are re-based in the cache, which rotary and ALiBi models allow; others (GPT-2, OPT) are refused.

    --compare says what is lost, in nats per token with 95 % intervals over texts: by the window alone, with 1, 2, 4 and 8 sinks
    (the same number of tokens in all), and with everything computed afresh. It states its cost first.

    \b
    Examples:
      innerworks stream "Once upon a time"                        the default specimen, until Ctrl-C
      innerworks stream ./my-model "Dear diary," --temperature 0.8 --tokens 2000
      innerworks stream "Once upon a time" --sinks 0 --window 64 --tokens 300    see it fall apart
      innerworks stream --compare                                 what sinks are worth in this model
    """
    from innerworks.cli.screen import errors, waiting
    from innerworks.errors import UsageError
    from innerworks.model import load

    name, prompt = _told_apart(words or [], compare)
    if limit < 1 or (tokens is not None and tokens < 1):
        raise UsageError(f"--limit {limit}, --tokens {tokens}: at least 1.")
    with waiting(f"Loading {name} and checking it"):
        model = load(name, revision=revision, device=device, dtype=dtype, progress=lambda step: errors.print(step, style="dim"))
    if compare:
        try:
            _show(_compared(model, corpus, limit, sinks + window), as_json)
        except KeyboardInterrupt:
            errors.print("\nInterrupted: nothing was decided.")
            raise typer.Exit(1) from None
        return
    _say(model, prompt, as_json, seed, sinks=sinks, window=window, max_new_tokens=tokens, temperature=temperature)


def _told_apart(words: list[str], compare: bool) -> tuple[str, str]:
    """The model and the prompt: of one word alone it is the prompt, or with --compare the model."""
    from innerworks.errors import UsageError
    from innerworks.model.specimen import DEFAULT

    if compare and len(words) <= 1:
        return (words[0] if words else DEFAULT), ""
    if compare:
        raise UsageError("--compare reads the corpus and takes no prompt: innerworks stream [MODEL] --compare")
    if len(words) not in (1, 2):
        raise UsageError(
            f'A model (or none) and one prompt in quotes; got {len(words)} words: innerworks stream "Once upon a time"'
        )
    return (DEFAULT if len(words) == 1 else words[0]), words[-1]


def _say(model: "Model", prompt: str, as_json: bool, seed: int, **options: Any) -> None:
    """Print tokens as they come, until the last or Ctrl-C."""
    from dataclasses import asdict
    from time import perf_counter

    import torch

    from innerworks.cli.screen import errors
    from innerworks.heads.streaming import stream

    made, began = 0, perf_counter()
    ending = "interrupted"
    try:
        if not as_json:
            typer.echo(prompt, nl=False)
        for token in stream(model, prompt, generator=torch.Generator().manual_seed(seed), **options):
            made += 1
            typer.echo(json.dumps(asdict(token), ensure_ascii=False) if as_json else token.text, nl=as_json)
        ending = "done"
    except KeyboardInterrupt:
        pass
    if not as_json:
        typer.echo("")
    rate = made / (perf_counter() - began)
    errors.print(f"{ending}: {made:,} tokens, {rate:.1f} a second; kept {options['sinks']} first and {options['window']} latest")


def _compared(model: "Model", corpus: str, limit: int, cache: int) -> "StreamingLosses":
    from time import perf_counter

    import torch

    from innerworks.cli.screen import ScanProgress, errors
    from innerworks.heads.streaming import WAYS, cost, streaming_losses, texts_of
    from innerworks.scan import Step
    from innerworks.text import Corpus

    texts = texts_of(model, Corpus.open(corpus), cache=cache, per_domain=limit)
    streamed, recomputed = cost(texts, cache=cache)
    began = perf_counter()
    model.run(torch.tensor([texts[0].tokens[:cache]]), logits="last")
    seconds = (perf_counter() - began) / cache * (SLOWER * streamed + recomputed)
    errors.print(
        f"{len(WAYS)} ways of keeping {cache} tokens, on {len(texts)} texts of {len(texts[0].tokens)}: {streamed:,} tokens one "
        f"by one and {recomputed:,} in whole windows, about {max(1, round(seconds / 60))} min here",
        soft_wrap=True,
    )
    with ScanProgress() as bar:
        return streaming_losses(
            model,
            texts,
            cache=cache,
            progress=lambda done, total: bar(Step(stage="streaming", done=done, total=total, unit="tokens")),
        )


def _show(losses: "StreamingLosses", as_json: bool) -> None:
    from dataclasses import asdict

    from innerworks.cli.screen import output
    from innerworks.heads.streaming import findings

    rows = findings(losses)
    if as_json:
        beyond = {way: _beyond(losses, way) for way in losses.by_way}
        said = {"cache": losses.cache, "beyond_recomputation": beyond, "findings": [asdict(row) for row in rows]}
        typer.echo(json.dumps(said))
        return
    output.print(_table(losses))
    for row in rows:
        if row.measure in SAYS:
            met = "yes" if row.effect_low > row.floor else "no" if row.effect_high < row.floor else "open"
            interval = f"{row.effect:+.3f} [{row.effect_low:+.3f}, {row.effect_high:+.3f}] nats"
            output.print(f"{SAYS[row.measure]}: {met}. {interval}, n = {row.n} texts", soft_wrap=True)


SAYS = {
    "loss_without_sinks": "Without sinks the loss is higher than with four, by more than 0.1",
    "closeness_with_sinks": "Four sinks lose less than 0.1 to recomputation (0.1 minus what they lose, above 0)",
}


def _beyond(losses: "StreamingLosses", way: str) -> dict[str, float]:
    """How much more a way loses than recomputation, where both were measured."""
    from innerworks.stats import estimate

    found = estimate(losses.per_text(way, where="recomputation") - losses.per_text("recomputation"), losses.strata)
    return {"nats": float(found.mean), "low": float(found.low), "high": float(found.high)}


def _table(losses: "StreamingLosses") -> Any:
    from math import exp

    from rich.table import Table

    from innerworks.heads.streaming import findings

    table = Table(box=None, pad_edge=False, title=f"Each way keeps {losses.cache} tokens", title_justify="left")
    for name in ("way", "nats [95 %]", "perplexity", "beyond recomputation [95 %]"):
        table.add_column(name, justify="left" if name == "way" else "right", no_wrap=True)
    for row in findings(losses):
        if row.target is None:
            continue
        more, reference = _beyond(losses, row.target), row.target == "recomputation"
        beyond = "" if reference else f"{more['nats']:+.3f} [{more['low']:+.3f}, {more['high']:+.3f}]"
        interval = f"{row.value:.3f} [{row.effect_low:.3f}, {row.effect_high:.3f}]"
        table.add_row(row.target.replace("_", " "), interval, f"{exp(row.value):.1f}", beyond)
    return table
