"""`innerworks universal`: which neurons of one model have their like in another one?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from innerworks.cli.options import Json, Seed

if TYPE_CHECKING:
    from innerworks.claims import Verdict
    from innerworks.model import Model
    from innerworks.neurons.universal import Universality


def universal(
    first: Annotated[str, typer.Argument(metavar="A", help="The model whose neurons are asked: as for scan.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The model in which their like is looked for.")],
    corpus: Annotated[str, typer.Option(help="builtin, or file:PATH (.jsonl, .txt, a folder of .txt).")] = "builtin",
    tokens: Annotated[
        int, typer.Option(metavar="N", help="Tokens to read: half to find matches, half to measure them.")
    ] = 10_000,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write what was found here: every neuron with its match.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where the models run: cpu, cuda, cuda:1.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Which neurons of model A have their like in model B, from another seed or of another family?

    Both read the same text. Each neuron of A is matched with that neuron of B which it correlates with most, on half of the
    documents; on the other half, that correlation is held against the best match among B's activations in a random basis
    (rotated layer by layer). A neuron is universal where the excess lies above .5 for sure. Tokenizers may differ: compared is
    wherever a token ends in both. It states its cost first.

    \b
    DIR will hold:
      neurons.parquet    one row per neuron of A: its match, both correlations, the excess with its interval, q
      findings.parquet   the share, and the universal neurons, as rows of an atlas
      result.json        what it comes to, over all and by layer, and claim F9

    \b
    Examples:
      innerworks universal ./seed-0 ./seed-1
      innerworks universal HuggingFaceTB/SmolLM2-135M smollm2-135m-instruct --tokens 4000
      innerworks universal ./seed-0 ./other --corpus file:texts.jsonl --tokens 50000 -o universal
    """
    from innerworks.claims import LEDGER, judge
    from innerworks.cli.screen import ScanProgress, errors, output, waiting
    from innerworks.errors import AtlasError
    from innerworks.findings import frame
    from innerworks.model import load
    from innerworks.neurons.universal import findings, universality
    from innerworks.scan import Step
    from innerworks.text import Corpus

    if out is not None and out.exists():
        raise AtlasError(f"{out} is there already: it is left alone. Give another folder with -o.")

    def loaded(name: str) -> "Model":
        with waiting(f"Loading {name} and checking it"):
            return load(name, device=device, dtype=dtype, progress=lambda step: errors.print(step, style="dim"))

    a, b = loaded(first), loaded(second)
    read = Corpus.open(corpus)
    errors.print(_cost(a, b, tokens), soft_wrap=True)
    try:
        with ScanProgress() as bar:
            result = universality(
                a,
                b,
                read,
                tokens=tokens,
                seed=seed,
                progress=lambda done, total: bar(Step(stage="matching", done=done, total=total, unit="tokens")),
            )
    except KeyboardInterrupt:
        errors.print("\nInterrupted: nothing was decided.")
        raise typer.Exit(1) from None
    rows = frame(findings(result))
    verdict = judge(LEDGER["F9"], rows)
    said = {**result.as_dict(), "claim": {"id": "F9", "verdict": verdict.verdict, "summary": verdict.summary}}
    if out is not None:
        _write(out, result, rows, {**said, **_provenance((a, b), read, seed)})
    if as_json:
        typer.echo(json.dumps(said, ensure_ascii=False))
        return
    output.print(_table(result))
    output.print(_in_words(result, verdict), soft_wrap=True)


def _cost(a: "Model", b: "Model", tokens: int) -> str:
    """How long it will take, by a product of matrices timed here."""
    from time import perf_counter

    import torch

    from innerworks.neurons.universal import multiplications

    tried = torch.ones(1024, 1024, device=a.device)
    began = perf_counter()
    float((tried @ tried).sum())
    seconds = multiplications(a, b, tokens // 2) / 1024**3 * (perf_counter() - began)
    sizes = [f"{one.anatomy.layers * one.anatomy.neurons:,} neurons of {one.name}" for one in (a, b)]
    return f"{sizes[0]} against {sizes[1]}, on {tokens:,} tokens: about {max(1, round(seconds / 60))} min here"


def _provenance(models: "tuple[Model, Model]", corpus: Any, seed: int) -> dict[str, Any]:
    """Exactly what was compared, on what."""
    from innerworks import __version__
    from innerworks.model.digest import tokenizer_digest, weights_digest

    digests = [{"weights": weights_digest(one.hf), "tokenizer": tokenizer_digest(one.tokenizer)} for one in models]
    return {"digests": digests, "corpus_digest": corpus.digest, "seed": seed, "innerworks": __version__}


def _write(out: Path, result: "Universality", rows: Any, said: dict[str, Any]) -> None:
    """Write the folder, whole or not at all."""
    from innerworks.errors import AtlasError

    partial = out.with_name(f".{out.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        result.frame().write_parquet(partial / "neurons.parquet")
        rows.write_parquet(partial / "findings.parquet")
        (partial / "result.json").write_text(json.dumps(said, ensure_ascii=False, indent=1), encoding="utf-8")
        partial.replace(out)
    except OSError as error:
        raise AtlasError(f"{out} cannot be written: {error.strerror}. Give another folder with -o.") from error


def _table(result: "Universality") -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=f"Neurons of {result.models[0]} in {result.models[1]}", title_justify="left")
    for name in ("layer", "neurons", "universal", "[shown, not excluded]", "match r", "rotated r", "mostly in"):
        table.add_column(name, justify="left" if name in ("layer", "mostly in") else "right", no_wrap=True)
    for layer, one in [*((f"L{layer}", one) for layer, one in result.by_layer.items()), ("all", result.share)]:
        interval = f"[{one.shown:.1%}, {one.not_excluded:.1%}]"
        numbers = (f"{one.share:.1%}", interval, f"{one.correlation:.2f}", f"{one.baseline:.2f}")
        table.add_row(layer, f"{one.neurons:,}", *numbers, one.matched_in)
    return table


def _in_words(result: "Universality", verdict: "Verdict") -> str:
    from innerworks.neurons.universal.universality import FLOOR

    share, half = result.share, "confirmation"
    return (
        f"{share.shown:.1%} of the neurons are shown to be universal (excess over rotated neurons above {FLOOR:g}; "
        f"{result.places[half]:,} tokens of {result.documents[half]} documents); "
        f"up to {share.not_excluded:.1%} are not excluded.\n"
        f"F9, 1-5 % of neurons are universal: {verdict.verdict}. {verdict.summary}"
    )
