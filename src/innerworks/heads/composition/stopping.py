"""Run a model up to some places and no further: what passes there, and the layers above are never computed.

A run that resumes from a clean one begins at the first edited layer; one that only asks what a head attends to can also end at
that head. Between the two lies all that an edit of a head's keys can change, which is a few layers at most.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from innerworks.model import Model, Run
from innerworks.model.call import Handler
from innerworks.model.edit import Edit
from innerworks.sites import KINDS, Site


class _Arrived(Exception):
    """All that was asked for has passed; nothing above is needed."""


def up_to(model: Model, clean: Run, sites: Sequence[Site], edit: Sequence[Edit] = ()) -> list[Tensor]:
    """What passes at some sites of whole layers, resumed from a clean run, with edits; the run ends at the last of them.

    Returns: the activations in the order of the sites, as recorded: `resid_pre` `[batch, seq, d_model]`, `pattern` `[batch, head,
    seq, key]`.
    """
    parts: dict[Site, list[Tensor]] = {site: [] for site in sites}
    length, left = clean.tokens.shape[1], set(sites)

    def handler(site: Site) -> Handler:
        axis = KINDS[site.activation][0].index("seq")

        def keep(activation: Tensor, queries: slice) -> None:
            parts[site].append(activation)
            if sum(part.shape[axis] for part in parts[site]) == length:  # patterns pass in blocks of queries
                left.discard(site)
            if not left:
                raise _Arrived

        return keep

    watch = [(site, handler(site)) for site in parts]
    try:
        model.run(clean.tokens, mask=clean.mask, edit=edit, watch=watch, resume=clean, logits="none")
    except _Arrived:
        pass
    return [torch.cat(parts[site], dim=KINDS[site.activation][0].index("seq")) for site in sites]
