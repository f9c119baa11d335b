"""What is said beside a number, in one line."""


def joined(*notes: str) -> str:
    """Those that say something, one after the other."""
    return "; ".join(note for note in notes if note)
