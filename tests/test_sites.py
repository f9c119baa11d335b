"""Sites: one spelling of every place, there and back."""

import pytest

from innerworks.errors import UnknownSite
from innerworks.sites import KINDS, LAYER_KINDS, Site, expand, head_site, near_misses, translate

TRANSFORMER_LENS = {
    "blocks.5.hook_resid_pre": "L5.resid_pre",
    "blocks.5.hook_resid_mid": "L5.resid_mid",
    "blocks.0.hook_resid_post": "L0.resid_post",
    "blocks.11.hook_attn_out": "L11.attn_out",
    "blocks.11.hook_mlp_out": "L11.mlp_out",
    "blocks.5.attn.hook_rot_q": "L5.q",
    "blocks.5.attn.hook_rot_k": "L5.k",
    "blocks.5.attn.hook_v": "L5.v",
    "blocks.5.attn.hook_pattern": "L5.pattern",
    "blocks.5.attn.hook_z": "L5.z",
    "blocks.23.mlp.hook_post": "L23.neurons",
    "blocks.5.hook_mlp_out": "L5.mlp_out",
    "blocks.5.ln1.hook_scale": "L5.attn_norm_scale",
    "blocks.5.ln2.hook_scale": "L5.mlp_norm_scale",
    "blocks.5.attn.hook_attn_scores": "L5.scores",
    "blocks.5.hook_q_input": "L5.q_in",
    "blocks.5.hook_k_input": "L5.k_in",
    "blocks.5.hook_v_input": "L5.v_in",
    "ln_final.hook_scale": "norm_scale",
}


@pytest.mark.parametrize(
    ("text", "site"),
    [
        ("L5.resid_post", Site(layer=5, kind="resid_post")),
        ("L5H3", Site(layer=5, head=3)),
        ("L5H3.pattern", Site(layer=5, head=3, kind="pattern")),
        ("L0H0.z", Site(layer=0, head=0, kind="z")),
        ("L5N812", Site(layer=5, neuron=812)),
        ("L5N812.neurons", Site(layer=5, neuron=812, kind="neurons")),
        ("L5D507", Site(layer=5, dimension=507)),
        ("L5D507.mlp_out", Site(layer=5, dimension=507, kind="mlp_out")),
        ("L12.mlp_out", Site(layer=12, kind="mlp_out")),
        ("L5.z.F1044", Site(layer=5, feature=1044, kind="z")),
        ("L105", Site(layer=105)),
        ("L5E3N12", Site(layer=5, expert=3, neuron=12)),
        ("L5E3.expert_neurons", Site(layer=5, expert=3, kind="expert_neurons")),
        ("L5E3N12.expert_neurons", Site(layer=5, expert=3, neuron=12, kind="expert_neurons")),
        ("L5H3.q_in", Site(layer=5, head=3, kind="q_in")),
        ("L5H3.scores", Site(layer=5, head=3, kind="scores")),
        ("norm_scale", Site(kind="norm_scale")),
        ("embed", Site(kind="embed")),
        ("logits", Site(kind="logits")),
        ("model", Site(kind="model")),
        *((f"L2.{kind}", Site(layer=2, kind=kind)) for kind in LAYER_KINDS),
    ],
)
def test_a_site_is_parsed_and_printed_back(text, site):
    assert Site.parse(text) == site
    assert str(site) == text
    assert Site.parse(site) is site


@pytest.mark.parametrize(("theirs", "ours"), TRANSFORMER_LENS.items())
def test_transformer_lens_names_are_understood_both_ways(theirs, ours):
    assert Site.parse(theirs) == Site.parse(ours)
    assert Site.parse(ours).to_transformer_lens() == theirs


@pytest.mark.parametrize("kind", [kind for kind in LAYER_KINDS if kind != "expert_neurons"])
def test_every_kind_inside_a_layer_has_a_transformer_lens_name(kind):
    theirs = Site(layer=3, kind=kind).to_transformer_lens()
    assert str(Site.parse(theirs)) == f"L3.{kind}" == translate(theirs)
    assert [str(site) for site in expand([theirs.replace("3", "*", 1)], layers=2, heads=4)] == [f"L0.{kind}", f"L1.{kind}"]


def test_neurons_of_experts_have_none_and_the_final_scale_has_one_without_a_layer():
    with pytest.raises(UnknownSite, match="L3E1N2 has no TransformerLens hook name"):
        Site.parse("L3E1N2").to_transformer_lens()
    assert Site.parse("ln_final.hook_scale") == Site(kind="norm_scale")
    assert expand(["ln_final.hook_scale"], layers=2, heads=2) == [Site(kind="norm_scale")]


def test_a_bare_head_stands_for_its_z_and_a_bare_neuron_for_its_activation():
    assert Site.parse("L5H3").activation == "z"
    assert Site.parse("L5N3").activation == "neurons"
    assert Site.parse("L5E1N3").activation == Site.parse("L5E1").activation == "expert_neurons"
    assert Site.parse("L5D507").activation == "resid_post"
    assert Site.parse("L5H3").to_transformer_lens() == "blocks.5.attn.hook_z"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("L5.resid_pots", "Did you mean resid_post"),
        ("L5H3.patern", "Did you mean pattern"),
        ("L5.Pattern", "not a place"),
        ("resid_post", "not a place"),
        ("L-1.z", "not a place"),
        ("LxH3", "not a place"),
        ("L5H3N4", "not a place"),
        ("L5D3N4", "not a place"),
        ("L5D3.pattern", "pattern has no dimension of its own"),
        ("L5H3.z ", "not a place"),
        ("", "not a place"),
        ("L5.embed", "no kind of site is called 'embed'"),
        ("L*.z", "not a place"),
        ("blocks.5.attn.hook_k", "hook_rot_k"),
        ("blocks.5.attn.hook_q", "hook_rot_q"),
        ("blocks.5.attn.hook_patern", "Did you mean attn.hook_pattern"),
        ("blocks.5.hook_resid_posts", "hook_resid_post"),
        ("L5H3.resid_post", "resid_post has no head"),
        ("L5H3.neurons", "neurons has no head"),
        ("L5N3.z", "z has no neuron"),
        ("L5N3.mlp_out", "mlp_out has no neuron"),
        ("L5H1N3", "not a place"),
        ("L5H1E3", "not a place"),
        ("L5N3E1", "not a place"),
        ("L5E1.neurons", "neurons has no expert"),
        ("L5E1N3.mlp_out", "mlp_out has no expert"),
        ("L5H3.attn_norm_scale", "attn_norm_scale has no head"),
        ("L5H3.expert_neurons", "expert_neurons has no head"),
        ("L5.expert_neuron", "Did you mean expert_neurons"),
        ("blocks.5.ln3.hook_scale", "ln1.hook_scale"),
    ],
)
def test_what_is_no_site_is_refused_by_name(text, says):
    with pytest.raises(UnknownSite, match=says) as caught:
        Site.parse(text)
    assert text in str(caught.value)


def test_a_site_without_a_meaning_elsewhere_has_no_transformer_lens_name():
    with pytest.raises(UnknownSite, match="embed"):
        Site.parse("embed").to_transformer_lens()
    with pytest.raises(UnknownSite, match="L5 is a layer"):
        Site.parse("L5").to_transformer_lens()


@pytest.mark.parametrize(
    ("pattern", "sites"),
    [
        ("L*.z", "L0.z L1.z L2.z"),
        ("L2H*.pattern", "L2H0.pattern L2H1.pattern"),
        ("L*H1.z", "L0H1.z L1H1.z L2H1.z"),
        ("L*H*.z", "L0H0.z L0H1.z L1H0.z L1H1.z L2H0.z L2H1.z"),
        ("blocks.*.hook_resid_post", "L0.resid_post L1.resid_post L2.resid_post"),
        ("blocks.1.attn.hook_z", "L1.z"),
        ("embed", "embed"),
        ("L9H9", "L9H9"),
    ],
)
def test_wildcards_are_spelled_out(pattern, sites):
    assert [str(site) for site in expand([pattern], layers=3, heads=2)] == sites.split()


def test_wildcards_keep_the_order_asked_for_and_pass_sites_through():
    found = expand(["L*.z", Site(layer=1, head=0), "embed"], layers=2, heads=2)
    assert [str(site) for site in found] == ["L0.z", "L1.z", "L1H0", "embed"]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("L*.resid_pots", "resid_post"),
        ("*.z", "not a place"),
        ("L*H*.attn_out", "attn_out has no head"),
        ("blocks.*.hook_zz", "blocks"),
    ],
)
def test_a_wildcard_of_an_unknown_kind_is_refused(pattern, says):
    with pytest.raises(UnknownSite, match=says):
        expand([pattern], layers=2, heads=2)


def test_a_head_and_its_kinds_have_names_and_axes():
    assert head_site(10, 7) == "L10H7"
    assert translate("L5.z") == "L5.z"
    for axes, meaning in KINDS.values():
        assert axes[0] == "batch" and "seq" in axes and meaning


def test_near_misses_offer_only_what_is_close():
    assert near_misses("patern", LAYER_KINDS).startswith(" Did you mean pattern")
    assert near_misses("xyzzy", LAYER_KINDS) == ""
