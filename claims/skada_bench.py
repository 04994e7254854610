"""SKADA-Bench (Lalou et al. 2024): what adaptation gains where no target label may choose its hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from boresight.domains import (
    align_subspaces,
    circular,
    coral,
    deep_embedded,
    density_ratio,
    importance_weighted,
    mixval,
    prediction_entropy,
    soft_neighbourhood_density,
)
from boresight.lab.claims import Arm, claim, less, more, same
from boresight.lab.shifts import SHIFTS, WIDTH, Shift, shifted

Vector = NDArray[np.float64]
GRIDS: dict[str, tuple[dict[str, float], ...]] = {
    "reweight": tuple({"flatten": f, "c": c} for f in (0.25, 0.5, 1.0) for c in (0.01, 1.0)),
    "coral": tuple({"penalty": p} for p in (1e-3, 1e-1, 1.0, 10.0)),
    "subspace": tuple({"width": w} for w in range(1, WIDTH + 1)),
}
SCORERS = ("importance-weighted", "deep-embedded", "entropy", "density", "circular", "mixval")


def fit(x: Vector, y: Any, weights: Vector | None = None) -> LogisticRegression:
    """A logistic regression, as every method here trains it."""
    return LogisticRegression(max_iter=1000).fit(x, y, sample_weight=weights)


def adapted(method: str, own: Mapping[str, float], source: Vector, target: Vector) -> tuple[Vector, Vector, Any]:
    """Features of source and of target after adaptation, and the weights of source rows (None: alike)."""
    if method == "reweight":
        return source, target, density_ratio(source, target, source, **own)
    if method == "coral":
        return coral(source, target, **own), target, None
    return (*align_subspaces(source, target, width=int(own["width"])), None)


def candidate(
    shift: Shift, method: str, own: Mapping[str, float], train: Any, seen: Any
) -> tuple[dict[str, float], float]:
    """Scores of one model by every scorer and by target labels ("labels"); and its accuracy on the target set aside.

    train: source rows to train on, the others being held out. seen: target rows known while choosing.
    """
    rows = shift.source, shift.target[seen], shift.target[~seen]
    source, both, weights = adapted(method, own, rows[0], np.concatenate(rows[1:]))
    here, apart = both[: seen.sum()], both[seen.sum() :]
    y = shift.labels
    model = fit(source[train], y[train], None if weights is None else weights[train])
    held, truth = source[~train], y[~train]
    ratio = density_ratio(source[train], here, held)
    right = model.predict(held) == truth
    loss = -model.predict_log_proba(held)[np.arange(len(truth)), truth]
    chance = model.predict_proba(here)

    def back(x: Vector, classes: Any) -> Callable[[Vector], Any]:
        # The way back is adapted as the way there, with the domains in each other's place.
        if method == "reweight":
            return fit(x, classes, density_ratio(x, source, x, **own)).predict
        return fit(x, classes).predict

    told = {
        "importance-weighted": importance_weighted(right, ratio),
        "deep-embedded": deep_embedded(loss, ratio),
        "entropy": prediction_entropy(chance),
        "density": soft_neighbourhood_density(chance),
        "circular": circular(back, source, y, here, model.predict(here)),
        "mixval": mixval(model.predict, here),
        "labels": float((model.predict(here) == shift.target_labels[seen]).mean()),
    }
    return told, float((model.predict(apart) == shift.target_labels[~seen]).mean())


@lru_cache(maxsize=512)
def benched(kind: str, seed: int, rows: int, size: float) -> tuple[dict[str, dict[str, float]], float, float]:
    """Accuracy on the target set aside by method and by what chose its hyper-parameters; of train-on-source; and of
    train-on-target.
    """
    shift = shifted(kind, seed, rows=rows, size=size)
    rng = np.random.default_rng(seed + 10_000)
    train, seen = rng.random(rows) < 2 / 3, rng.random(rows) < 1 / 2
    apart, truth = shift.target[~seen], shift.target_labels[~seen]
    anchors = [
        float((fit(*known).predict(apart) == truth).mean())
        for known in (
            (shift.source[train], shift.labels[train]),
            (shift.target[seen], shift.target_labels[seen]),
        )
    ]
    found: dict[str, dict[str, float]] = {}
    for method, grid in GRIDS.items():
        tried = [candidate(shift, method, own, train, seen) for own in grid]
        found[method] = {
            name: tried[int(np.argmax([told[name] for told, _ in tried]))][1] for name in (*SCORERS, "labels")
        }
    return found, anchors[0], anchors[1]


@claim(
    "skada-bench",
    part="selection",
    says="Hyper-parameters chosen by unsupervised scorers instead of target labels leave less than half of what "
    "adaptation appears to gain over none",
    expects=(less("gain"), less("gain, against half of it")),
    treatment="chosen by a scorer (mean of six)",
    baseline="chosen by target labels",
    sweep={"size": (0.5, 1.0, 1.5), "rows": (100, 200, 600), "scorer": ("all", *SCORERS)},
)
def selection(
    arm: Arm, seeds: Sequence[int], *, size: float = 1.0, rows: int = 200, scorer: str = "all"
) -> Mapping[str, Any]:
    """Four simulated shifts (covariate, target, conditional, subspace) of 200 rows a domain in four dimensions, and
    three methods with a grid each: reweighting, CORAL, subspace alignment; a logistic regression throughout. A model is
    trained on two thirds of the source; the scorers see the rest of it and half of the target, whose labels the
    baseline sees as well; gain is accuracy on the other half less that of train-on-source, mean over shifts and
    methods. In the second outcome the baseline's gain is halved, so that "less than half" is what is asked.

    In four seeds labels gained 0.055. The way back (circular) left nothing of it, importance weighting 0.004, deep
    embedded validation 0.008, density 0.016, MixVal 0.021; prediction entropy kept 0.040, more than half: with it alone
    the claim does not hold, for it finds the dimension that both domains share. At size 0.5 there is little to lose
    (0.007 with labels, -0.001 with scorers); at 1.5 labels gain 0.087 and scorers 0.025.
    """
    names = ("labels",) if arm == "baseline" else SCORERS if scorer == "all" else (scorer,)
    gains = []
    for seed in seeds:
        over = []
        for kind in SHIFTS:
            found, source, _ = benched(kind, seed, rows, size)
            over += [found[method][name] - source for method in GRIDS for name in names]
        gains.append(np.mean(over))
    gain = np.array(gains)
    return {"gain": gain, "gain, against half of it": gain / 2 if arm == "baseline" else gain}


@claim(
    "skada-bench",
    part="reweighting",
    says="Reweighting the source by density ratio gains accuracy on the target under covariate shift, and changes it "
    "by less than 0.02 under target, conditional and subspace shift",
    expects=(
        more("covariate"),
        same("target", within=0.02),
        same("conditional", within=0.02),
        same("subspace", within=0.02),
    ),
    treatment="source rows weighed by density ratio",
    baseline="no adaptation",
    sweep={"size": (0.25, 0.5, 1.0, 1.5), "rows": (50, 100, 300, 1000), "bent": (True, False)},
    smoke=True,
)
def reweighting(
    arm: Arm, seeds: Sequence[int], *, size: float = 1.0, rows: int = 300, bent: bool = True
) -> Mapping[str, Any]:
    """The shifts of `skada-bench/selection`, of 300 rows a domain; weights of a logistic regression that tells the
    domains apart, in full. Under covariate shift the boundary is bent and a straight one is fitted, so that what is
    best differs on the two sides.

    It is the model that must be wrong for weights to help: given the square of the feature that bends the boundary
    (bent=False) they lose 0.02 under covariate shift too. In four seeds the gain there was 0.00 at size 0.25, 0.03 at
    0.5, 0.20 at 1 and 0.21 at 1.5, and 0.18 to 0.24 with 50 to 1000 rows; under the other shifts means stayed within
    0.01, though with 50 rows they vary by 0.03 from seed to seed.
    """
    found: dict[str, list[float]] = {kind: [] for kind in SHIFTS}
    for seed in seeds:
        for kind in SHIFTS:
            shift = shifted(kind, seed, rows=rows, size=size)
            # With the square of the feature that bends the boundary the model is right on either side.
            x, there = (z if bent else np.concatenate([z, z[:, :1] ** 2], 1) for z in (shift.source, shift.target))
            weights = None if arm == "baseline" else density_ratio(shift.source, shift.target, shift.source)
            model = fit(x, shift.labels, weights)
            found[kind].append(float((model.predict(there) == shift.target_labels).mean()))
    return {kind: np.array(values) for kind, values in found.items()}
