"""The studies of a scan, in the order in which they see each other's findings; and how they are run, without a word about files.

1. `studies()`: where heads look, which relations they follow, what they write and suppress, what is lost without them, which head
   feeds which, which serve a domain; then what neurons respond to, and whether anything depends on that; what they write, which
   tell a kind of text, which are specific to a concept, which serve agreement and facts; then the
   shape of the stream.
2. `watch`: the union of their instruments, for one pass over the text.
3. `decide`: what all of them come to, a function of what each has kept.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from innerworks.errors import UsageError
from innerworks.findings import Finding
from innerworks.heads.ablations_study import AblationStudy
from innerworks.heads.circuits.study import Circuits
from innerworks.heads.composition.study import Composition
from innerworks.heads.domains.study import Domains
from innerworks.heads.seen import Seen
from innerworks.heads.sinks.study import Sinks
from innerworks.heads.streaming.study import Streaming
from innerworks.heads.suppression.study import Suppression
from innerworks.heads.syntax.study import Syntax
from innerworks.model import Model
from innerworks.model.observe import Instrument
from innerworks.model.study import Given, Kept, Study, Units, units_of
from innerworks.neurons.agreement.study import Agreement
from innerworks.neurons.concepts.study import Concepts
from innerworks.neurons.effects.study import Effects
from innerworks.neurons.inputs.study import NeuronInputs
from innerworks.neurons.knowledge.study import Knowledge
from innerworks.neurons.outputs import Outputs, Vocabulary
from innerworks.neurons.skills.study import Skills
from innerworks.residual.geometry import Geometry
from innerworks.scan.engine import Pass, begin, observe
from innerworks.text import Reading

Stage = Callable[[str, int, int | None, str], None]  # (study, done, total or None, unit)


#: chapter -> its studies, in the order in which they see each other's findings
STUDIES: dict[str, tuple[Callable[[], Study], ...]] = {
    "heads": (Seen, Syntax, Circuits, Suppression, AblationStudy, Composition, Domains, Sinks, Streaming),
    "neurons": (NeuronInputs, Effects, Outputs, Vocabulary, Skills, Concepts, Agreement, Knowledge),
    "residual": (Geometry,),
}


def studies(only: Sequence[str] | None = None) -> list[Study]:
    """Every study of a scan, in order; only: those of some chapters."""
    wanted = list(STUDIES) if only is None else list(only)
    unknown = [name for name in wanted if name not in STUDIES]
    if unknown or not wanted:
        raise UsageError(f"only={', '.join(unknown) or 'no chapter'}: the chapters of a scan are {', '.join(STUDIES)}.")
    return [study() for chapter, some in STUDIES.items() if chapter in wanted for study in some]


def watch(model: Model, chosen: Sequence[Study]) -> list[Instrument]:
    """What watches the pass: the instruments of these studies, each once."""
    found: dict[str, Instrument] = {}
    for study in chosen:
        for one in study.instruments(model):
            found.setdefault(one.name, one)
    return list(found.values())


@dataclass(kw_only=True)
class Results:
    """What studies have kept so far, and what it comes to."""

    kept: dict[str, Kept] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Begun:
    """How far a study was when it was interrupted, and where it keeps what it has.

    kept: what it had measured; done: whether that is all. save: called with the same.
    """

    kept: Kept | None = None
    done: bool = False
    save: Callable[[Kept, bool], None] = lambda kept, done: None


def ask(
    chosen: Sequence[Study],
    model: Model,
    reading: Reading,
    current: Pass,
    *,
    depth: str,
    seed: int,
    begun: Callable[[str], Begun] = lambda name: Begun(),
    stage: Stage = lambda name, done, total, unit: None,
) -> Results:
    """Measure and decide every study in turn, once the text is read. begun: called with a study's name when its turn comes."""
    results, units = Results(), units_of(reading)
    for study in chosen:
        name, before = study.name, begun(study.name)
        kept = before.kept if before.done else None
        if kept is None:
            given = Given(
                model=model,
                reading=reading,
                states=current.states,
                before=results.findings,
                depth=depth,
                seed=seed,
                saved=before.kept,
                save=lambda kept, before=before: before.save(kept, False),
                step=lambda done, total, unit, name=name: stage(name, done, total, unit),
            )
            kept = study.measure(given)
            before.save(kept, True)
        results.kept[name] = kept
        results.findings = study.findings(kept, units, results.findings)
    return results


def decide(chosen: Sequence[Study], kept: Mapping[str, Kept], units: Units) -> list[Finding]:
    """What studies come to, from what they kept alone."""
    findings: list[Finding] = []
    for study in chosen:
        if study.name in kept:
            findings = study.findings(kept[study.name], units, findings)
    return findings


def measure(model: Model, reading: Reading, *, depth: str = "quick", seed: int = 0) -> list[Finding]:
    """Read, measure and decide in memory: the findings that a scan of this depth would write."""
    chosen = studies()
    watching = watch(model, chosen)
    current = observe(model, reading, watching, begin(model, reading, watching))
    return ask(chosen, model, reading, current, depth=depth, seed=seed).findings
