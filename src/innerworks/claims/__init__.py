"""The ledger: what the literature believes about the inner workings of language models, and whether it holds in this one.

`claim.py` what a claim is and how its clauses add up · `rules.py` the rules by which findings answer a clause · one file per
chapter with its claims. A verdict is a function of an atlas' findings alone.
"""

from innerworks.claims.attention import ATTENTION
from innerworks.claims.claim import Claim, Clause, Evidence, Verdict, judge
from innerworks.claims.neurons import NEURONS
from innerworks.claims.residual import RESIDUAL

LEDGER: dict[str, Claim] = {claim.id: claim for claim in (*ATTENTION, *NEURONS, *RESIDUAL)}

__all__ = ["LEDGER", "Claim", "Clause", "Evidence", "Verdict", "judge"]
