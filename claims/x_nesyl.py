"""X-NeSyL (Diaz-Rodriguez et al. 2022): detectors' losses weighed by how far explanations contradict the experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from boresight.judging.knowledge import edit_distance, expert_graph, shap_graph, shapley
from boresight.judging.parts import fit_parts
from boresight.lab.claims import Arm, claim, less, same

PARTS, CLASSES, WIDTH, TRAIN, TEST, EXPLAINED, BACKGROUND = 6, 3, 12, 200, 400, 200, 10
KNOWN = {"a": ("0", "1"), "b": ("1", "2", "3"), "c": ("3", "4", "5")}


def drawn(seed: int, flip: float, noise: float) -> tuple[Any, ...]:
    """The experts' graph; features, marked parts and classes of TRAIN rows; features and classes of TEST rows.

    A row has each part of its class with probability 0.8 and each other with 0.2. Features are parts times a random
    matrix, with normal noise; each mark of a part is turned over with probability `flip`.
    """
    rng = np.random.default_rng(seed)
    graph = expert_graph(KNOWN, [str(p) for p in range(PARTS)], list(KNOWN))
    seen = rng.normal(size=(PARTS, WIDTH)) * 1.5 / PARTS**0.5
    y = rng.integers(0, CLASSES, TRAIN + TEST)
    parts = (rng.random((TRAIN + TEST, PARTS)) < np.where(graph[:, y].T, 0.8, 0.2)).astype(int)
    x = parts @ seen + noise * rng.normal(size=(TRAIN + TEST, WIDTH))
    marked = np.where(rng.random(parts.shape) < flip, 1 - parts, parts)
    return graph, x[:TRAIN], marked[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


@claim(
    "x-nesyl",
    says="Weighing detections by how far Shapley values contradict the experts' graph brings explanations nearer to "
    "the graph, at the same accuracy",
    expects=(less("edit distance"), same("accuracy", within=0.02)),
    treatment="SHAP-Backprop",
    baseline="plain training",
    sweep={
        "h": (1.0, 3.0, 10.0, 30.0),
        "absent": (False, True),
        "level": ("part", "instance"),
        "form": ("linear", "exponential"),
        "flip": (0.0, 0.1, 0.3),
        "noise": (0.3, 1.0, 2.0),
        "l2": (1e-3, 1e-2, 1e-1),
    },
)
def reweighted(
    arm: Arm,
    seeds: Sequence[int],
    *,
    h: float = 10.0,
    absent: bool = False,
    level: str = "part",
    form: str = "linear",
    flip: float = 0.1,
    noise: float = 1.0,
    l2: float = 1e-3,
    rounds: int = 4,
) -> Mapping[str, Any]:
    """Six parts and three classes, of which two share a part with another; 200 rows to train on, features of 12 numbers
    with noise as large as the parts' own, one mark in ten turned over. Linear detectors, a linear head on their scores;
    in three rounds after the first, detections are weighed by 1 + 10 times the misattribution to the row's class.
    Edit distance is that of each test row's graph of exact Shapley values to the experts', of 18 possible edges;
    accuracy is of 400 test rows.

    Not shown: over five seeds the distance, 1.64 edges, changed by +0.05, with a standard deviation of 0.11 from seed
    to seed, and accuracy (.67) not at all. So it was with h = 1 (+0.02) and 30 (+0.10), with weights of whole rows
    (+0.09), exponential weights (+0.06), without flipped marks (-0.03), with little noise (+0.09) and much (+0.10),
    with stronger penalties (l2 0.01: +0.07; 0.1: -0.01, and with h = 30 -0.04), and where absent parts are to speak the
    other way round (-0.02). With three marks in ten turned over it rose (+0.27): what is weighed up there is mostly
    false marks. Weights change little of a detector that is trained to its optimum on a loss it can satisfy, and the
    head, which Shapley values are about, is not told of the graph at all. The paper's detectors are deep networks,
    trained for a few epochs.
    """
    found = []
    for seed in seeds:
        graph, x, marked, y, test, told = drawn(seed, flip, noise)
        model = fit_parts(
            x,
            marked,
            y,
            graph,
            h=h if arm == "treatment" else 0.0,
            rounds=rounds,
            level=level,
            form=form,
            absent=absent,
            background=BACKGROUND,
            l2=l2,
            seed=seed,
        )
        scores = model.parts(test[:EXPLAINED])
        speak = shapley(model.classes, scores, model.parts(x[:BACKGROUND]))
        far = edit_distance(shap_graph(speak, scores), graph).mean()
        found.append([far, (model(test).argmax(1) == told).mean()])
    return dict(zip(("edit distance", "accuracy"), np.array(found).T, strict=True))
