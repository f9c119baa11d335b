"""How much of the chapter's rate of false labels may each study spend?

Studies label one after the other, and later ones look at what earlier ones found, so their p values never lie in one table. Each
controls its false discoveries at its share of the level. Shares are fixed beforehand and add up to one, so the chapter's rate is
at most the level: of V false labels among R, `V / R <= sum of V_s / R_s`. A q is stated over its share: q <= .05 means the same
in every study.
"""

from collections.abc import Mapping

from innerworks.stats import Array, family_q

SHARES = {"seen": 0.4, "syntax": 0.2, "circuits": 0.2, "suppression": 0.1, "domains": 0.1}


def study_q(study: str, p_by_family: Mapping[str, Array]) -> dict[str, Array]:
    """`stats.family_q` at the share of one study."""
    return family_q(p_by_family, share=SHARES[study])
