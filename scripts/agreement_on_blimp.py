"""Do agreement neurons serve other paradigms of grammar, too? Ablates them on minimal pairs of BLiMP.

    python scripts/agreement_on_blimp.py blimp.jsonl.gz L17N1208 L20N33 ...

1. Of the paradigms whose good and bad sentence part at one word (`one_prefix_method`), the pairs of which this word begins with
   different single tokens: the prompt is what stands before it.
2. The neurons are ablated together (their mean over our own agreement prompts), and so are matched groups. What the logit of the
   good token less that of the bad one falls by is printed by paradigm, in logits, with a 95 % interval over pairs.

Warstadt et al. 2020, arXiv:1912.00582; the data are not part of this package.
"""

import argparse
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import innerworks as iw
from innerworks.errors import UsageError
from innerworks.model import Model
from innerworks.model.harms import changes
from innerworks.model.prompts import Prompt, agreeing, batch_of, difference, prompts_of
from innerworks.neurons.groups import matched_groups
from innerworks.neurons.means import reference_of
from innerworks.neurons.necessity import without
from innerworks.sites import Site
from innerworks.stats import estimate
from innerworks.text.tasks.pairs import encoded


def main() -> None:
    """Print one line per paradigm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("blimp", type=Path)
    parser.add_argument("neurons", nargs="+", help="places such as L17N1208")
    parser.add_argument("--model", default=None)
    parser.add_argument("--pairs", type=int, default=40, help="of each paradigm, at most")
    parser.add_argument("--groups", type=int, default=5, help="matched groups, at least 1")
    given = parser.parse_args()
    model = iw.load(given.model) if given.model else iw.load()
    members = [neuron(model, one) for one in given.neurons]
    discovery = [one for one in prompts_of(model, "agreement", agreeing) if one.half == "discovery"]
    of = reference_of(model, [batch_of(discovery, "agreement")[0]], over="discovery prompts")
    groups = matched_groups(members, (), of.removed)[: given.groups]
    if not groups:
        raise UsageError(f"{model.name} has too few neurons for a group matched to {len(members)} of them. Name fewer.")
    ways = [without(model, of.mean, some) for some in (members, *groups)]
    sys.stdout.write(
        "| paradigm | pairs | good is likelier | difference | falls by | matched groups |\n|---|---|---|---|---|---|\n"
    )
    for name, some in pairs(model, given.blimp, given.pairs).items():
        batch, asked, strata = batch_of(some, name)
        metric = difference(model, asked)
        clean = metric(batch, model.run(batch.tokens, mask=batch.mask, logits="none").final).numpy(force=True)
        fall = -changes(model, [batch], ways, metric)
        own = estimate(fall[0], [""] * len(strata))
        told = f"{clean.mean():+.2f} | {own.mean:+.3f} [{own.low:+.3f}, {own.high:+.3f}] | {fall[1:].mean():+.3f}"
        sys.stdout.write(f"| {name.replace('_', ' ')} | {len(some)} | {(clean > 0).mean():.0%} | {told} |\n")


def neuron(model: Model, text: str) -> tuple[int, int]:
    """The layer and index of a neuron such as L17N1208."""
    site = Site.parse(text)
    if site.layer is None or site.neuron is None:
        raise UsageError(f"{text} is no neuron. Write places such as L17N1208.")
    model.check(site)
    return site.layer, site.neuron


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a .jsonl file, gzipped or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        yield from (line for line in lines if line.strip())


def pairs(model: Model, path: Path, most: int) -> dict[str, list[Prompt]]:
    """The pairs of each paradigm that part at one word, as prompts; a unit is a pair."""
    found: dict[str, list[Prompt]] = defaultdict(list)
    for line in lines_of(path):
        item = json.loads(line)
        if not item["one_prefix_method"] or len(found[item["UID"]]) >= most:
            continue
        good, bad = (encoded(model.tokenizer, item[f"sentence_{which}"]) for which in ("good", "bad"))
        shared = next((i for i, (a, b) in enumerate(zip(good, bad, strict=False)) if a != b), 0)
        if shared >= 2:
            ends = {"answers": good[shared : shared + 1], "foils": bad[shared : shared + 1], "stratum": ""}
            name = f"{len(found[item['UID']]):04d}"
            found[item["UID"]].append(Prompt(tokens=good[:shared], **ends, unit=name, half="confirmation"))
    return {name: some for name, some in found.items() if len(some) >= 12}


if __name__ == "__main__":
    main()
