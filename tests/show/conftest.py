"""A small invented atlas with everything the show chapter has to show, and a browser."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import invented_neurons
from innerworks.atlas import Atlas, Example, NeuronExample, Unfinished, schema
from innerworks.findings import Finding
from invented import every_kind

LAYERS, HEADS, NEURONS = 3, 4, 16
EVIL = "</script><script>window.evil=1</script>"
TOKENS = ("The", " cat", "\n", EVIL, "<b>b</b>", '<a href="http://evil.example">', " cat", "\n", "\u202e", "")

#: (behaviour, head) -> (rung, note)
LABELS = {
    ("induction", "L2H1"): (3, "alone"),
    ("induction", "L2H2"): (1, ""),
    ("induction", "L1H0"): (1, ""),
    ("previous_token", "L0H3"): (2, "jointly"),
    ("previous_token", "L1H0"): (1, ""),
    ("first_token", "L2H1"): (1, ""),
    ("first_token", "L1H1"): (1, ""),
    ("first_token", "L1H2"): (1, ""),
}
MATERIALS = {
    "induction": ("text", "random"),
    "previous_token": ("text", "random"),
    "offset_2": ("text", "random"),
    "first_token": ("text",),
}


def attention(behaviour: str, material: str, layer: int, head: int) -> Finding:
    """An invented score, high where there is a label."""
    rung, note = LABELS.get((behaviour, f"L{layer}H{head}"), (0, ""))
    effect = 0.3 + 0.1 * layer + 0.01 * head if rung else 0.001 * (head - 1)
    return Finding(
        chapter="heads",
        behaviour=behaviour,
        site=f"L{layer}H{head}",
        layer=layer,
        index=head,
        measure="attention",
        material=material,
        value=effect + 0.02,
        unit="probability",
        effect=effect,
        effect_low=effect - 0.01,
        effect_high=effect + 0.01,
        n=80,
        null=0.02,
        null_kind="pattern swap",
        floor=0.05,
        p=0.0 if rung else 1.0,
        mde=0.0612,
        q=1e-9 if rung else None,
        rung=rung,
        note=note,
    )


def ablated(behaviour: str, site: str, measure: str, effect: float, note: str, target: str | None = None) -> Finding:
    """An invented harm."""
    return Finding(
        chapter="heads",
        behaviour=behaviour,
        site=site,
        layer=int(site[1]),
        index=int(site[3]),
        measure=measure,
        material="text",
        value=effect + 0.002,
        unit="nats",
        effect=effect,
        effect_low=effect * 0.9,
        effect_high=effect * 1.1,
        n=80,
        null=0.01 if measure == "collateral" else 0.002,
        null_kind="limit of little harm" if measure == "collateral" else "matched controls",
        floor=3.0 if measure == "collateral" else 0.02,
        p=None if measure == "collateral" else 1e-7,
        mde=None if measure == "collateral" else 0.03,
        q=2e-4,
        ablation="mean",
        note=note,
        target=target,
    )


def findings() -> list[Finding]:
    """All rows of the invented atlas."""
    rows = [
        attention(behaviour, material, layer, head)
        for behaviour, materials in MATERIALS.items()
        for material in materials
        for layer, head in np.ndindex(LAYERS, HEADS)
    ]
    return [
        *rows,
        ablated("induction", "L2H1", "harm", 0.98, "alone"),
        ablated("induction", "L2H2", "harm", 0.001, "alone"),
        ablated("induction", "L2H1", "collateral", 0.003, ""),
        ablated("previous_token", "L0H3", "joint_harm", 0.4, "jointly", target="L0H3 L1H0"),
        ablated("previous_token", "L0H3", "marginal_harm", 0.1, "jointly"),
        ablated("previous_token", "L0H3", "collateral", 0.009, "rung 3 not decided"),
    ]


def write_atlas(path: Path, rows: list[Finding], examples: list[Example], neurons: list[NeuronExample] | None = None) -> Atlas:
    """Write an atlas of an invented model; neurons: where some are strongest, in an atlas that has them."""
    atlas = Unfinished.create(path, {"depth": "quick"})
    atlas.write_findings(rows)
    atlas.write_examples(examples)
    atlas.write_neurons(neurons or [])
    if neurons is not None:
        atlas.write_arrays(schema.of_study("neuron_inputs"), *invented_neurons.arrays(LAYERS, NEURONS))
    return atlas.finish(
        {
            "model": {
                "name": "tiny <model>",
                "family": "llama",
                "parameters": 1_234_567,
                "layers": 3,
                "heads": 4,
                "kv_heads": 2,
                "neurons": NEURONS,
            },
            "corpus": {"name": "builtin", "documents": 160, "tokens": 44064, "notes": [EVIL]},
            "settings": {"depth": "quick", "seed": 0, "only": None},
            "units": {"text": {"discovery": 80, "confirmation": 80}, "random": {"discovery": 32, "confirmation": 32}},
            "certificate": {"checks": [{"what": "pattern @ v = z", "difference": 2e-6, "allowed": 1e-4}]},
            "timings": {"reading": 73.4, "ablation": 512.0},
            "versions": {"innerworks": "0.1.0"},
        }
    )


def shown(site: str, behaviour: str) -> Example:
    """A head that, at the second cat, looks at the line break after the first."""
    length = len(TOKENS)
    pattern = np.tril(np.full((length, length), 0.02, dtype=np.float32))
    pattern[6, 2] = 0.8
    return Example(behaviour=behaviour, site=site, unit="fiction/03", tokens=TOKENS, pattern=pattern)


def written(site: str, behaviour: str) -> Example:
    """The same with what it writes: at the second cat it raises what it looks at; hostile tokens here, too."""
    by_weights = ((" cat", " cat", 3.2), (EVIL, "\n", 1.1))
    return replace(shown(site, behaviour), query=6, raised=(("\n", 2.5), (EVIL, 1.0)), lowered=((" dog", -1.5),), rows=by_weights)


@pytest.fixture(scope="session")
def evil() -> str:
    """A token that would end a script, were it not escaped."""
    return EVIL


@pytest.fixture(scope="session")
def example() -> Example:
    """An example of the induction head, hostile tokens included."""
    return shown("L2H1", "induction")


@pytest.fixture(scope="session")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """An atlas with labels of every rung, two of them on one head, one behaviour not found, and hostile text."""
    path = tmp_path_factory.mktemp("show") / "tiny.atlas"
    return write_atlas(path, findings(), [shown("L2H1", "induction"), shown("L1H1", "first_token")])


@pytest.fixture(scope="session")
def rich_atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """Every kind of head that there is, pairs, layers and the model as a whole."""
    examples = [written("L2H1", "induction"), written("L2H1", "copying"), written("L1H0", "syntactic:nsubj")]
    rows = [*findings(), *every_kind(LAYERS, HEADS)]
    return write_atlas(tmp_path_factory.mktemp("show") / "rich.atlas", rows, examples)


@pytest.fixture(scope="session")
def neuron_atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """Heads, and neurons with and without labels; hostile tokens around where they are strongest."""
    rows = [*findings(), *invented_neurons.findings()]
    path = tmp_path_factory.mktemp("show") / "neurons.atlas"
    return write_atlas(path, rows, [shown("L2H1", "induction")], invented_neurons.examples())


@pytest.fixture(scope="session")
def joiner_atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """Joiners, which have two nulls; L1H0 is labelled, looks far and has a sink that gives way; nothing was ablated."""
    rows = []
    for layer, head in np.ndindex(LAYERS, HEADS):
        labelled = (layer, head) == (1, 0)
        effect = 0.45 if labelled else 0.3  # all beat the pattern swap
        one = replace(attention("subword_joiner", "text", layer, head), effect=effect, effect_low=effect, effect_high=effect)
        one = replace(one, rung=int(labelled), q=1e-9 if labelled else None)
        across = effect / 2 if labelled else 0.01
        of_nulls = {"measure": "attention_across", "null_kind": "across words", "mde": 0.0777}
        rows += [one, replace(one, effect=across, effect_low=across, effect_high=across, **of_nulls)]
    label = next(one for one in rows if one.rung)
    rows.append(replace(label, measure="attention_far", effect=0.02, effect_low=0.01, effect_high=0.03, rung=0))
    rows.append(replace(label, behaviour="attention_sink", measure="sink_contrast", target="subword_joiner", rung=0))
    return write_atlas(tmp_path_factory.mktemp("show") / "joiner.atlas", rows, [])


@pytest.fixture(scope="session")
def empty_atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """An atlas in which nothing was found, and nothing ablated."""
    rows = [attention("offset_2", m, layer, head) for m in ("text", "random") for layer, head in np.ndindex(LAYERS, HEADS)]
    return write_atlas(tmp_path_factory.mktemp("show") / "empty.atlas", rows, [])


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["object"]:
    """Debian's chromium, without a window and without network."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed (apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    profile = tmp_path_factory.mktemp("chromium")
    quiet = ("quic", "gpu", "background-networking", "component-update", "sync", "dev-shm-usage")
    names = [
        "headless=new",
        "no-first-run",
        f"user-data-dir={profile}",
        "force-prefers-reduced-motion",
        *(f"disable-{name}" for name in quiet),
    ]
    names += ["no-sandbox"] if os.geteuid() == 0 else []
    for name in names:
        options.add_argument(f"--{name}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chromium.set_window_size(1280, 1000)
    yield chromium
    chromium.quit()
