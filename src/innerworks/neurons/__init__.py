"""The feed-forward chapter: what every neuron responds to, what it writes, and what is lost without it."""
