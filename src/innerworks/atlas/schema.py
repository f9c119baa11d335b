"""The files of an atlas, and what each holds.

manifest.json                     what was scanned, how, with which versions; written last: a folder without it is unfinished
findings.parquet                  one row per measured statement (`innerworks.findings.COLUMNS`)
claims.parquet                    the ledger: `id title statement citation verdict summary evidence` (JSON: one object per clause)
examples.parquet                  real text on which a labelled head shows what it does: `behaviour site unit tokens array`, and
                                  what it writes: at token `query` the tokens it `raised` and `lowered` most, with logits;
                                  `rows`: by its weights, for a token that it reads, the token changed most
neurons.parquet                   labelled neurons and those near a label: `site`; `contexts`, the stretches of real text on which
                                  it is strongest: `unit tokens at position value`; `side`, which side of zero that is; and the
                                  tokens that it `raised` and `lowered` most there, by its weights, with logits
units.parquet                     what was counted, in order: documents and generated sequences, `id stratum material half`
arrays/STUDY.safetensors          what each study kept: the same arrays give the same findings (`innerworks.scan.decide_again`).
  heads_by_unit                   `mass [unit, measure, layer, head]`, `rows [unit, measure]`; the measures as metadata
  ablations                       `SET/metric [unit]`: each metric without a set of heads (`clean` for none), and
                                  `removed/material [layer, head]`
  neuron_inputs                   `mean [test, layer, neuron]`, `peak`, `histogram`, ...: see `innerworks.atlas.neurons`
  neuron_necessity                `harm`, `elsewhere [trial, unit]` (NaN: no such token there), `by_control/TRIAL [control, unit]`
arrays/patterns.safetensors       attention patterns of the examples, `[query, key]` each, by the name in `examples.array`
report.html                       one page, no network

While a scan is under way the folder also holds `partial/`, from which it can be taken up again.
"""

SCHEMA_VERSION = 5
MANIFEST = "manifest.json"
FINDINGS = "findings.parquet"
CLAIMS = "claims.parquet"
EXAMPLES = "examples.parquet"
NEURONS = "neurons.parquet"
UNITS = "units.parquet"
PATTERNS = "arrays/patterns.safetensors"
REPORT = "report.html"
PARTIAL = "partial"
FILES = (MANIFEST, FINDINGS, CLAIMS, EXAMPLES, NEURONS, UNITS, PATTERNS, REPORT)

EXAMPLE_COLUMNS = ("behaviour", "site", "unit", "tokens", "array", "query", "raised", "lowered", "rows")
NEURON_COLUMNS = ("site", "side", "contexts", "raised", "lowered")
CLAIM_COLUMNS = ("id", "title", "statement", "citation", "verdict", "summary", "evidence")
UNIT_COLUMNS = ("id", "stratum", "material", "half")


def of_study(name: str) -> str:
    """The file of a study's arrays."""
    return f"arrays/{name}.safetensors"
