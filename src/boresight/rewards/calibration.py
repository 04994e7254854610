"""Whether a reward's margins mean what Bradley-Terry says they mean: sigmoid(margin) is the chance of being right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Pairs of like confidence: the range, how many, their mean confidence, and the share that was right."""

    low: float
    high: float
    count: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """ece: mean over pairs of |confidence - share right| of their bin. brier, log_loss (nats): of sigmoid(margin).

    scale: the factor of the margins at which the log-loss is least, 1 for a calibrated reward, below 1 for one that is
    too sure of itself; 0 where the margins say nothing, inf where they are never wrong. scaled: the ECE at that factor.
    """

    ece: float
    brier: float
    log_loss: float
    scale: float
    scaled: float
    bins: tuple[Bin, ...]


def calibration(margins: ArrayLike, weights: ArrayLike | None = None, bins: int = BINS) -> Calibration:
    """How well sigmoid(margin) predicts that the chosen response is the preferred one.

    margins: chosen less rejected, (pairs,), finite. weights: of the pairs. The confidence of a verdict is
    sigmoid(|margin|), in [.5, 1], where `bins` of equal width lie; a margin of 0 is half right.
    Source: Guo et al. 2017, On calibration of modern neural networks, eq. 3; scale: section 4.2, as 1 / temperature.
    Raises ValueError without pairs, for margins that are not finite, or fewer than one bin.
    """
    m = np.asarray(margins, float)
    w = np.ones_like(m) if weights is None else np.asarray(weights, float)
    if m.ndim != 1 or not m.size or w.shape != m.shape or not np.isfinite(m).all():
        raise ValueError(f"calibration needs finite margins of at least one pair, not shape {m.shape}")
    if bins < 1:
        raise ValueError(f"bins={bins}: there must be one at least")
    w = w / w.sum()
    table = _binned(m, w, bins)
    factor = _scale(m, w)
    inside = [b for b, _ in table]
    return Calibration(
        ece=sum(share * abs(b.confidence - b.right) for b, share in table),
        brier=float(w @ _wrong(m) ** 2),
        log_loss=float(w @ np.logaddexp(0, -m)),
        scale=factor,
        scaled=_ece_at(m, w, factor, bins),
        bins=tuple(inside),
    )


def _wrong(m: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - sigmoid(m)."""
    found: NDArray[np.float64] = np.exp(-np.logaddexp(0, m))
    return found


def _binned(m: NDArray[np.float64], w: NDArray[np.float64], bins: int) -> list[tuple[Bin, float]]:
    confidence, right = 1 - _wrong(np.abs(m)), (np.sign(m) + 1) / 2
    width = 0.5 / bins
    place = np.minimum(((confidence - 0.5) / width).astype(int), bins - 1)
    found = []
    for k in range(bins):
        here = place == k
        share = float(w[here].sum())
        if share > 0:
            means = [float(w[here] @ values[here]) / share for values in (confidence, right)]
            found.append((Bin(0.5 + k * width, 0.5 + (k + 1) * width, int(here.sum()), *means), share))
    return found


def _scale(m: NDArray[np.float64], w: NDArray[np.float64]) -> float:
    """The factor s >= 0 that minimises the mean of log(1 + exp(-s m)): where its derivative is 0."""
    if (m <= 0).all() or float(w @ m) <= 0:  # the derivative at 0 is -mean(m) / 2
        return 0.0
    if (m >= 0).all():
        return float("inf")
    from scipy.optimize import brentq

    def slope(s: float) -> float:
        return float(w @ (m * _wrong(s * m)))

    most = 1.0 / float(np.abs(m).max())
    while slope(most) > 0:
        most *= 2
    return float(brentq(slope, 0.0, most, xtol=1e-12, rtol=1e-10))


def _ece_at(m: NDArray[np.float64], w: NDArray[np.float64], factor: float, bins: int) -> float:
    if np.isinf(factor):
        m, factor = np.where(m == 0, 0.0, np.sign(m) * 1e3), 1.0
    return sum(share * abs(b.confidence - b.right) for b, share in _binned(m * factor, w, bins))
