"""What all feed-forward neurons respond to, as a study of a scan.

1. The pass (`watch.py`): fits on discovery, tests on confirmation, strongest contexts.
2. Candidates for position are read again behind a filler (`shift.py`), those for the token before in shuffled text
   (`shuffle.py`).
3. What is kept is small enough for an atlas: per test and neuron a mean over documents with its standard error; contexts; a
   histogram.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from innerworks.findings import Finding
from innerworks.model import Model
from innerworks.model.observe import Instrument, State
from innerworks.model.study import Given, Kept, Units
from innerworks.neurons.inputs import buckets, decide
from innerworks.neurons.inputs.design import Design
from innerworks.neurons.inputs.fits import Fit, gains_from_sums
from innerworks.neurons.inputs.kept import contexts, described
from innerworks.neurons.inputs.kinds import KINDS, SHIFT, SHUFFLE, Test
from innerworks.neurons.inputs.shift import follows_position, shifted
from innerworks.neurons.inputs.shuffle import follows_the_token_before, shuffled
from innerworks.neurons.inputs.watch import FITS, TESTS, Frozen, Inputs, fit_of, freeze, sums
from innerworks.stats import estimate_from_sums
from innerworks.text.reading import BATCH

READ_AGAIN = {"quick": 16, "standard": 32, "full": 32}  # sequences behind a filler, and shuffled documents
NONE = "no layer has a plain feed-forward: all are mixtures of experts"


class NeuronInputs:
    """The study: what do neurons respond to?"""

    name = "neuron_inputs"

    def instruments(self, model: Model) -> Sequence[Instrument]:
        """One instrument over all neurons; none for a model whose feed-forward layers are all mixtures of experts."""
        return [Inputs(model)] if model.anatomy.neurons else []

    def measure(self, given: Given) -> Kept:
        """Effects over documents, contexts, and what is read again."""
        if not given.model.anatomy.neurons:
            return Kept(about={"not measured": NONE})
        state, reading = given.states[Inputs.name], given.reading
        design = Design.of(given.model.tokenizer, reading, vocab=given.model.anatomy.vocab)
        frozen = freeze(design, reading, state, torch.device("cpu"))
        arrays, about = effects(design, state, frozen)
        arrays["there"] = np.array([given.model.lacks("neurons", layer) is None for layer in range(given.model.anatomy.layers)])
        of_types, about["types"] = buckets.moments(state)
        about["documents"] = state["documents"].long().tolist()
        arrays |= of_types | described(given.model, state, frozen) | contexts(design, reading, state)
        more, why = _shift(given, arrays, state, frozen)
        more |= _shuffle(given, design, arrays, state, frozen)
        return Kept(arrays=arrays | more, about=about | why)

    def findings(self, kept: Kept, units: Units, before: Sequence[Finding]) -> list[Finding]:
        """Labels of every kind."""
        return [*before, *([] if "not measured" in kept.about else decide.findings(kept))]


def effects(design: Design, state: State, frozen: Frozen) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """What each test comes to: means over confirmation documents as shares of variance, and the same on discovery."""
    found: dict[str, list[np.ndarray]] = {"mean": [], "se": [], "positive": []}
    counts: dict[str, list[int]] = {"n": [], "df": []}
    for i in range(len(TESTS)):
        units = state["units"][:, i].numpy()
        scale = np.maximum(state["total"][i].double().numpy() / max(units.sum(), 1), 1e-30)
        sums = (state[name][:, i].double().numpy() for name in ("gain", "gain_squared", "gained"))
        gain, squares, positive = sums
        one = estimate_from_sums(gain / scale, squares / scale**2, positive, units)
        for name, values in found.items():
            values.append(np.asarray(getattr(one, name), dtype=np.float32))
        for name, numbers in counts.items():
            numbers.append(getattr(one, name))
    arrays = {name: np.stack(values) for name, values in found.items()}
    arrays["discovery"] = np.concatenate([_on_discovery(design, state, frozen, name) for name in FITS])
    return arrays, {"tests": [list(test) for test in TESTS], **counts}


def _on_discovery(design: Design, state: State, frozen: Frozen, name: str) -> np.ndarray:
    """By how much each family helped on discovery, as a share: it picks candidates, and nothing else.

    Optimistic where fitted and tested rows are the same, by about columns / rows. What the token decides is fitted on a quarter
    of the token types and asked of another quarter, and the other way round; the types to test on are left alone.
    """
    if name != "types":
        parts = ("gram", "product", "squares")
        if name == "generated":
            gram, product, squares = (state[f"{one}_generated"] for one in parts)
        else:
            gram, product, squares = (state[one].sum(dim=0) for one in parts)
        mean = frozen.mean_generated if name == "generated" else frozen.mean
        gained, total = _gained(frozen.fits[name], gram, product, squares, mean)
        return (gained / total.clamp(min=1e-12)).numpy()
    gained, total = torch.zeros(1), torch.zeros(1)
    for here, there in ((0, 1), (1, 0)):
        quarter = fit_of(design, name, *sums(design, state, slice(there, there + 1))).around(frozen.mean)
        gram, product = sums(design, state, slice(here, here + 1))
        more, of = _gained(quarter, gram, product, state["squares"][here], frozen.mean)
        gained, total = gained + more, total + of
    return (gained / total.clamp(min=1e-12)).numpy()


def _gained(one: Fit, gram: Tensor, product: Tensor, squares: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """By how much the families of a fit lower the sum of squares `[family, layer, neuron]`, and what it is in all."""
    rows = float(gram[0, 0].clamp(min=1))
    centred = product - gram[:, 0].float()[None, :, None] * mean[:, None]
    return gains_from_sums(one, gram, centred), squares - 2 * mean * product[:, 0] + rows * mean.square()


def _shift(
    given: Given, arrays: dict[str, np.ndarray], state: State, frozen: Frozen
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read candidates for position again behind a filler."""
    candidates = _candidates(SHIFT, arrays)
    texts = shifted(given.model, given.reading, sequences=READ_AGAIN[given.depth])
    if texts is None:
        return {}, {"no shift": "the model's context has no room for a filler"}
    found = np.zeros((len(texts.tokens), 0), dtype=np.float32)
    if len(candidates):
        tally = given.tally(-(-len(texts.tokens) // BATCH), "batches")
        found = follows_position(given.model, state, frozen, _pairs(candidates), texts, step=tally)
    return {"shift/neurons": candidates, "shift/gain": found}, {}


def _shuffle(given: Given, design: Design, arrays: dict[str, np.ndarray], state: State, frozen: Frozen) -> dict[str, np.ndarray]:
    """Read candidates for the token before again in shuffled documents."""
    candidates, generator = _candidates(SHUFFLE, arrays), np.random.default_rng(given.seed)
    texts = shuffled(given.model, given.reading, documents=READ_AGAIN[given.depth], generator=generator)
    found = np.zeros((sum(len(batch.units) for batch in texts), 0), dtype=np.float32)
    if len(candidates):
        tally = given.tally(len(texts), "batches")
        found = follows_the_token_before(given.model, design, state, frozen, _pairs(candidates), texts, step=tally)
    return {"shuffle/neurons": candidates, "shuffle/gain": found}


def _candidates(again: Test, arrays: dict[str, np.ndarray]) -> decide.Places:
    """The candidates of the kind that asks for this other reading."""
    kind = next(kind for kind in KINDS if again in kind.tests)
    tests = [(TESTS.index(test), floor) for test, floor in kind.tests.items() if test != again]
    return decide.candidates([arrays["discovery"][i] for i, _ in tests], [floor for _, floor in tests])


def _pairs(places: decide.Places) -> list[tuple[int, int]]:
    return [(int(layer), int(neuron)) for layer, neuron in places]
