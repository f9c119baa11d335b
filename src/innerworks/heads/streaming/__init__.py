"""Streaming: a few sink tokens and the latest ones are all that a model needs to keep to go on without end."""

from innerworks.heads.streaming.cache import RollingCache, RollingLayer, advance
from innerworks.heads.streaming.generate import Token, stream
from innerworks.heads.streaming.generation import Generated, generation
from innerworks.heads.streaming.losses import (
    DECIDING,
    WAYS,
    StreamingLosses,
    StreamText,
    Way,
    cost,
    streaming_losses,
    texts_of,
)
from innerworks.heads.streaming.rotation import Rotation, rotations
from innerworks.heads.streaming.rows import findings, generation_findings
from innerworks.heads.streaming.study import Streaming

__all__ = [
    "DECIDING",
    "Generated",
    "WAYS",
    "RollingCache",
    "RollingLayer",
    "Rotation",
    "StreamText",
    "Streaming",
    "StreamingLosses",
    "Token",
    "Way",
    "advance",
    "cost",
    "findings",
    "generation",
    "generation_findings",
    "rotations",
    "stream",
    "streaming_losses",
    "texts_of",
]
