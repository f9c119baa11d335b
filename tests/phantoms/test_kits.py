"""Heads of every kit do what their kit says: where they look, what they write, and what is lost without them."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from innerworks.heads.circuits.embedding import as_read, effective, unembedding
from innerworks.heads.circuits.ordinals import classes, rows
from innerworks.model import Model
from innerworks.phantoms import Phantom, build
from innerworks.phantoms.families import FAMILIES
from innerworks.phantoms.kits import KITS
from innerworks.phantoms.places import draw_places
from innerworks.phantoms.rotation import rotated
from innerworks.phantoms.words import ORDERED
from innerworks.text.syntax import token_arcs, trees_of
from innerworks.text.trees import fault_of
from planted import documents, losses, patterns, phantom, place, silence

ARCHITECTURES = ("gpt2", "llama")
FILLERS = 24
OF_HEADS = [name for name, kit in KITS.items() if not kit.neurons]  # those of neurons: test_neuron_kits.py


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pieces(made: Phantom, tokens: Tensor) -> Tensor:
    """How many tokens back the word of each token begins; 0 where it begins there, or is none."""
    named = [made.tokenizer.convert_ids_to_tokens(row.tolist()) for row in tokens]
    back = torch.zeros_like(tokens)
    for row, names in enumerate(named):
        for column, name in enumerate(names):
            if column and name.isalpha() and name[0] != "Ġ":
                back[row, column] = back[row, column - 1] + 1
    return back


def test_every_kit_leaves_room_for_fillers_and_each_architecture_has_place_for_it() -> None:
    for kit in KITS.values():
        names = [part.name for part in kit.parts]
        assert len(set(names)) == len(names) and set(kit.chain) <= set(names)
        for family in FAMILIES.values():
            shared = family.heads // family.kv_heads
            assert family.layers * family.heads - shared * (len(names) + 1) >= FILLERS
            for seed in range(20):
                drawn = draw_places(family, np.random.default_rng(seed), names, kit.chain)
                layers = [drawn[name].layer for name in kit.chain]
                assert layers == sorted(set(layers)) and len({str(one) for one in drawn.values()}) == len(names) + 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_joiner_looks_at_the_beginning_of_its_word_however_far_back(architecture: str) -> None:
    made = phantom(architecture, 0, kit="offsets")
    tokens = documents(made)
    back, (site,) = pieces(made, tokens), made.truth["subword_joiner"]
    layer, head = place(site)
    pattern = patterns(made.hf, tokens)[:, layer, head]
    for distance in (1, 2):
        where = (back == distance).nonzero()
        assert len(where) > 20
        assert pattern[where[:, 0], where[:, 1], where[:, 1] - distance].mean() > 0.7
    begins = (back == 0).nonzero()
    begins = begins[begins[:, 1] > 0]
    assert pattern[begins[:, 0], begins[:, 1], 0].mean() > 0.95  # at rest


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_offset_heads_look_so_far_back_and_nowhere_else(architecture: str) -> None:
    made = phantom(architecture, 0, kit="offsets")
    seen = patterns(made.hf, documents(made)).mean(dim=0)
    for behaviour, offset in (("current_token", 0), ("offset_2", 2), ("offset_3", 3)):
        mass = seen.diagonal(-offset, dim1=-2, dim2=-1)[..., 16:].mean(dim=-1)
        (site,) = made.truth[behaviour]
        assert mass[place(site)] > 0.95
        mass[place(site)] = 0
        assert mass.max() < 0.55  # of a decoy that looks one or two back


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_successor_head_counts_up_through_the_first_feed_forward_and_its_decoy_down(architecture: str) -> None:
    made = phantom(architecture, 0, kit="writing")
    model = Model(made.hf, made.tokenizer, name="phantom")
    kept, _ = classes(made.tokenizer)
    assert [item for one in kept for item in one.members] == [item for one in ORDERED for item in one]
    assert Counter(row.half for row in rows(made.tokenizer, kept)) == {"discovery": 12, "confirmation": 12}  # enough to decide
    for site, step in ((made.truth["successor"][0], 1), (made.decoys["predecessor"], -1)):
        layer, head = place(site)
        circuit = model.weights.W_V(layer, fold=True, per_head=True)[head] @ model.weights.W_O(layer, fold=True)[head]
        for one in kept:
            tokens = torch.tensor(one.tokens)
            brought = effective(model, tokens)
            right = {}
            for through in ("mlp0", "raw"):
                logits = as_read(model, brought[through]) @ circuit @ unembedding(model, tokens)
                beside = one.successor if step == 1 else [place - 1 for place in range(len(tokens))]
                inner = [i for i, after in enumerate(one.successor) if after >= 0 and i in one.successor]
                right[through] = np.mean([int(logits[i].argmax()) == beside[i] for i in inner])
            assert right["mlp0"] > 0.8 and right["raw"] < 0.5, (one.name, right)


@pytest.mark.parametrize("kit", [name for name in OF_HEADS if name != "patterns"])  # whose heads test_build.py silences
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_phantom_needs_the_heads_that_are_called_necessary(architecture: str, kit: str) -> None:
    """Without one, its own text is predicted worse; without another, hardly so."""
    made = phantom(architecture, 0, kit=kit)
    tokens = documents(made, n=12)
    clean = losses(made.hf, tokens)
    for site in made.necessary:
        assert (losses(silence(made.hf, site), tokens) - clean).mean() > 0.01, (site, made.truth)
    writers = {site for site, kinds in made.behaviours.items() if {"copying", "anti_copying"} & {*kinds}}
    for site in {one for sites in made.truth.values() for one in sites} - {*made.necessary} - writers:
        assert (losses(silence(made.hf, site), tokens) - clean).mean() < 0.01, (site, made.truth)


@pytest.mark.parametrize("kit", [name for name in OF_HEADS if name != "patterns"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rotating_the_stream_changes_nothing(architecture: str, kit: str) -> None:
    made = phantom(architecture, 0, kit=kit)
    tokens = documents(made)
    with torch.no_grad():
        assert (rotated(made.hf, seed=5)(tokens).logits - made.hf(tokens).logits).abs().max() <= 1e-3


@pytest.mark.parametrize("kit", OF_HEADS)
def test_the_seed_decides_everything(kit: str) -> None:
    made, again, other = phantom("llama", 0, kit=kit), build("llama", seed=0, kit=kit), phantom("llama", 1, kit=kit)
    weights, same = made.hf.state_dict(), again.hf.state_dict()
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert (made.behaviours, made.corpus(2)) == (again.behaviours, again.corpus(2))
    assert made.behaviours != other.behaviours and made.documents(2) != other.documents(2)


def test_copy_suppression_undoes_what_the_stream_predicts_and_no_more() -> None:
    """Silenced, the tokens that the copiers predict get their logits back."""
    made = phantom("gpt2", 0, kit="writing")
    tokens = documents(made)
    (site,) = made.truth["copy_suppression"]
    layer, head = place(made.decoys["copier_at_a_gap"])
    looked = patterns(made.hf, tokens)[:, layer, head].argmax(dim=-1)  # batch query
    predicted = tokens.gather(1, looked)
    with torch.no_grad():
        difference = silence(made.hf, site)(tokens).logits - made.hf(tokens).logits
    rise = difference.gather(2, predicted[:, :, None])[:, 16:, 0]
    assert rise.mean() > 3 and difference[:, 16:].mean().abs() < 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_syntactic_heads_find_what_stands_in_their_relation_and_no_offset_does(architecture: str) -> None:
    made = phantom(architecture, 0, kit="sentences")
    right, arcs, best = {"nsubj<": 0, "obj": 0}, {"nsubj<": 0, "obj": 0}, {"nsubj<": Counter(), "obj": Counter()}
    for document in made.corpus(8):
        encoded = made.tokenizer(document.text, return_offsets_mapping=True)
        tokens = torch.tensor([encoded["input_ids"]])
        pattern = patterns(made.hf, tokens)[0]
        for arc in (one for one in token_arcs(document.trees, encoded["offset_mapping"]) if one.relation in right):
            layer, head = place(made.truth[f"syntactic:{arc.relation}"][0])
            looked = int(pattern[layer, head, arc.query, 1:].argmax()) + 1
            right[arc.relation] += any(start <= looked < end for start, end in arc.targets)
            arcs[arc.relation] += 1
            best[arc.relation].update(arc.query - start for start, _ in arc.targets)
    for relation, count in arcs.items():
        assert count > 30 and right[relation] / count > 0.95, (relation, right, arcs)
        assert best[relation].most_common(1)[0][1] / count < 0.6


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_domain_head_matters_in_its_domain_alone_and_its_decoy_in_both(architecture: str) -> None:
    made = phantom(architecture, 0, kit="sentences")
    tokens, domains = documents(made, n=12), [document.domain for document in made.corpus(12, words=160)]
    at_home = torch.tensor([domain == "hill" for domain in domains])
    clean = losses(made.hf, tokens)
    for site, everywhere in ((made.truth["domain:hill"][0], False), (made.decoys["everywhere"], True)):
        harm = (losses(silence(made.hf, site), tokens) - clean).mean(dim=1)
        assert harm[at_home].mean() > 0.05
        assert (harm[~at_home].mean() > 0.05) == everywhere


def test_documents_of_sentences_have_trees_of_their_text() -> None:
    for document in phantom("gpt2", 0, kit="sentences").corpus(4):
        assert trees_of(document) == document.trees and len(document.trees) > 5
        assert all(fault_of(tree.heads) is None for tree in document.trees)
