"""Numbers as a careful scientist prints them: as many digits as the interval supports, never 0.0000."""

import math

NOTHING = "–"


def known(value: int | float | None) -> bool:
    """Is there a number at all? None and NaN (nothing to measure it on) are not."""
    return value is not None and math.isfinite(value)


def decimals(low: int | float | None, high: int | float | None) -> int:
    """How many decimals an estimate deserves: down to the first digit of its interval's half width, at most 4; 2 below one."""
    if low is None or high is None or not (known(low) and known(high)) or high <= low:
        return 3
    half = (high - low) / 2
    return min(4, max(2 if half < 1 else 1 if half < 10 else 0, -math.floor(math.log10(half))))


def number(value: int | float | None, places: int = 3) -> str:
    """Print a number with a fixed count of decimals and a true minus sign."""
    if value is None or not known(value):
        return NOTHING
    text = f"{value:.{places}f}"
    return (text.removeprefix("-") if float(text) == 0 else text).replace("-", "−")


def rounded(value: int | float | None, digits: int = 2) -> str:
    """Print a number with so many significant digits: 0.0703 -> 0.07, 1234 -> 1200."""
    if value is None or not known(value):
        return NOTHING
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return number(round(value, places), max(0, places))


def estimate(value: int | float | None, low: int | float | None, high: int | float | None) -> str:
    """Print an effect with its 95 % interval: `0.68 [0.66, 0.70]`; alone where there is none, or where it is the number."""
    places = decimals(low, high)
    if not (known(low) and known(high)) or low == high:
        return number(value, places)
    return f"{number(value, places)} [{number(low, places)}, {number(high, places)}]"


def q_value(q: int | float | None) -> str:
    """Print a q or p: `0.027`, `0.0021`, `3.1e-5`, `< 1e-6`, or a dash where it was not tested."""
    if q is None or not known(q):
        return NOTHING
    if q < 1e-6:
        return "< 1e-6"
    return small(q)


def constant(value: int | float | None) -> str:
    """Print a number that was chosen, not measured (a floor), with no more digits than it has: 0.02."""
    return NOTHING if value is None or not known(value) else f"{value:.3g}".replace("-", "−")


def small(value: int | float | None) -> str:
    """Print a number that may be tiny: `0`, `2.0e−6`, `0.027`."""
    if value is None or not known(value) or value == 0 or abs(value) >= 1e-3:
        return rounded(value)
    power = math.floor(math.log10(abs(value)))
    return f"{value / 10**power:.1f}e−{-power}".replace("-", "−")


def signed(value: float) -> str:
    """Print a share with its sign: `+0.123`, `−1.200`; below 0.01 its first digits.

    >>> signed(3.14159), signed(-0.00123), signed(0.0)
    ('+3.142', '−0.0012', '0.000')
    """
    said = number(value) if abs(value) >= 0.01 or value == 0 else small(value)
    return f"+{said}" if value > 0 else said


def count(value: int) -> str:
    """Print a whole number with thin spaces between thousands: 44 064."""
    return f"{value:,}".replace(",", "\u202f")


def duration(seconds: int | float) -> str:
    """Print a time: `0.8 s`, `73 s`, `8 min 32 s`."""
    if seconds < 100:
        return f"{rounded(seconds)} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
