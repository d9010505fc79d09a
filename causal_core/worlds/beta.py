"""The Beta distribution: its distribution function, and the quantile that turns uniform noise into a Beta value.

The regularised incomplete beta function by its continued fraction (Abramowitz and Stegun 26.5.8), cut off and evaluated
from the back, and its inverse by Newton steps that bisection keeps between known bounds.
"""

from __future__ import annotations

import math

# Enough for every a and b up to 100.
TERMS = 40


def beta_cdf(x: float, a: float, b: float) -> float:
    """Probability that a Beta(a, b) variable is at most `x`, to about 12 digits.

    Parameters
    ----------
    x : 0 to 1
    a, b : above 0, at most 100

    Examples
    --------
    >>> round(beta_cdf(0.25, 1, 1), 12), round(beta_cdf(0.5, 3, 3), 12)
    (0.25, 0.5)
    """
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1) / (a + b + 2):  # on the other side the fraction converges faster
        return 1.0 - beta_cdf(1.0 - x, b, a)
    fraction = 1.0
    for i in range(TERMS, 0, -1):
        m = i // 2
        top = -(a + m) * (a + b + m) if i % 2 else m * (b - m)
        fraction = 1.0 + top * x / ((a + i - 1) * (a + i)) / fraction
    return x * (1.0 - x) * _density(x, a, b) / a / fraction


def beta_quantile(u: float, a: float, b: float) -> float:
    """The `x` in 0 to 1 with ``beta_cdf(x, a, b) == u``.

    Parameters
    ----------
    u : 0 to 1
    a, b : above 0, at most 100

    Examples
    --------
    >>> round(beta_quantile(0.25, 1, 1), 12), round(beta_quantile(0.5, 2, 2), 12)
    (0.25, 0.5)
    """
    if u <= 0.0 or u >= 1.0:
        return float(u >= 1.0)
    low, high, x = 0.0, 1.0, a / (a + b)
    for _ in range(100):
        error = beta_cdf(x, a, b) - u
        low, high = (low, x) if error > 0.0 else (x, high)
        density = _density(x, a, b)
        newton = x - error / density if density > 0.0 else 0.0
        last, x = x, newton if 0.0 < newton < 1.0 and low <= newton <= high else (low + high) / 2
        if x == 1.0 or abs(x - last) <= 1e-15 * x:
            break
    return x


def _density(x: float, a: float, b: float) -> float:
    constant = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(constant + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x))
