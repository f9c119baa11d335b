"""Claims about feed-forward neurons, F1 to F12."""

from innerworks.claims.claim import Claim
from innerworks.claims.rules import share

SECOND_MODEL = "a scan sees one model; lay two side by side with: innerworks universal A B"

NEURONS = (
    Claim(
        id="F9",
        title="universal neurons",
        statement="1-5 % of neurons are universal across models: another model, from another seed, has their like.",
        citation="Gurnee et al. 2024, arXiv:2401.12181",
        clauses=(
            share("at least 1 % of neurons", "universal_neuron", "universal_share", least=0.01, without=SECOND_MODEL),
            share("and at most 5 %", "universal_neuron", "universal_share", most=0.05, without=SECOND_MODEL),
        ),
    ),
)
