"""One dial, from which everything else about a scan follows."""

from dataclasses import dataclass

from innerworks.errors import UsageError, near_misses


@dataclass(frozen=True, kw_only=True)
class Depth:
    """How much is read and how much is ablated."""

    name: str
    says: str
    per_domain: int | None  # documents; None is all

    def documents(self, domains: int) -> int | None:
        """How many documents of each domain to read: more where there are fewer domains than the built-in corpus has."""
        return None if self.per_domain is None else max(self.per_domain, -(-self.per_domain * BUILTIN_DOMAINS // domains))


BUILTIN_DOMAINS = 10


DEPTHS = {
    depth.name: depth
    for depth in (
        Depth(
            name="quick",
            says="8 documents per domain (80 in all where domains are few); the strongest labels of the kinds that claims "
            "ask for, 10 in all, each alone, against 20 shared controls",
            per_domain=8,
        ),
        Depth(
            name="standard",
            says="the whole corpus; every label is ablated, alone and jointly, against 20 controls of its own",
            per_domain=None,
        ),
        Depth(
            name="full",
            says="as standard, with all generated sequences and 80 documents of 256 tokens behind each ablation",
            per_domain=None,
        ),
    )
}


def depth_of(name: str) -> Depth:
    """Find a depth by name."""
    if name not in DEPTHS:
        raise UsageError(f"depth={name!r}: one of {', '.join(DEPTHS)}.{near_misses(name, DEPTHS)}")
    return DEPTHS[name]
