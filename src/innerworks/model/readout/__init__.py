"""What the final norm and the unembedding make of the stream: the logit lens, and who contributed what to a logit."""

from innerworks.model.readout.attribution import Attribution, Group, attribute, way
from innerworks.model.readout.lens import Top, logit_lens, top

__all__ = ["Attribution", "Group", "Top", "attribute", "logit_lens", "top", "way"]
