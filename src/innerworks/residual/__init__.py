"""The residual chapter: the stream that every part reads and writes."""
