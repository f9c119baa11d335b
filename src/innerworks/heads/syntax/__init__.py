"""Syntactic heads: which heads look along which relation of a syntactic tree, better than any fixed offset? (claim A3).

`watching` what is counted while a text is read · `decide` from counts to labels · `study` both, as a study of a scan.
"""

from innerworks.heads.syntax.decide import ArcsByUnit, findings
from innerworks.heads.syntax.study import Syntax
from innerworks.heads.syntax.watching import Arcs, shuffled

__all__ = ["Arcs", "ArcsByUnit", "Syntax", "findings", "shuffled"]
