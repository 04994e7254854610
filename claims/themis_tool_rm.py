"""Tool-augmented reward modeling (Li et al. 2023): a reward with the calculator's result, and one without."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from boresight.data.example import Example, Pair, Response
from boresight.lab.claims import Arm, claim, more
from boresight.rewards.features import FeatureNetwork
from boresight.rewards.tools import ToolReward, calculator

SEEN, UNSEEN = (10, 500), (1000, 10000)
PAIRS, HELD_OUT = 200, 400


def sums(rng: np.random.Generator, count: int, operands: tuple[int, int], error: int) -> list[Example]:
    """Pairs of a right and a wrong sum of the same operands; the wrong one is off by 1 to `error`, up or down."""
    made = []
    for _ in range(count):
        a, b = (int(x) for x in rng.integers(*operands, size=2))
        off = int(rng.integers(1, error + 1)) * (1 if rng.random() < 0.5 else -1)
        off = -off if a + b + off <= 0 else off
        texts = [f"{a} + {b} = {a + b}", f"{a} + {b} = {a + b + off}"]
        made.append(Example(f"What is {a} + {b}?", tuple(Response(t) for t in texts), (Pair(0, 1),)))
    return made


def read(number: Callable[[list[int]], float]) -> Callable[[Sequence[str], Sequence[str]], list[float]]:
    """A feature of the numbers in a text, in their order."""
    return lambda prompts, responses: [number([int(n) for n in re.findall(r"\d+", text)]) for text in responses]


FEATURES = {
    **{f"size of number {k + 1}": read(lambda n, k=k: float(np.log(n[k] + 1))) for k in range(3)},  # type: ignore[misc]
    "digits of the result": read(lambda n: float(len(str(n[2])))),
    "the last number is the result": read(lambda n: float(n[-1] == n[2])),
}
"""What either reward reads. Without an observation the last number is the result itself."""
DIGITS = {f"last digit of number {k + 1}": read(lambda n, k=k: float(n[k] % 10)) for k in range(3)}  # type: ignore[misc]


@claim(
    "themis-tool-rm",
    says="A tiny reward given the calculator's result ranks right over wrong unseen sums, one without it hardly",
    expects=more("accuracy on unseen operands", by=0.4),
    treatment="FeatureNetwork that reads the observation",
    baseline="the same without a tool",
    sweep={"error": (1, 10, 100, 1000, 10000), "digits": (False, True)},
    smoke=True,
)
def with_a_calculator(arm: Arm, seeds: Sequence[int], *, error: int = 10, digits: bool = False) -> Mapping[str, Any]:
    """Pairs of a right and a wrong sum, `error` at most apart; a network of 16 units over five features of the
    text (sizes of the first three numbers, digits of the result, whether the last number in the text is the result),
    fitted to 200 pairs with operands from 10 to 499 and asked about 400 with operands from 1000 to 9999.
    With `ToolReward` the text goes on with the calculator's thought, action, input and observation.

    It holds at every `error` that was tried: 0.99 to 1.00 with the tool, 0.47 to 0.56 without it. The bound is set by
    what the network reads: with the last digits of the three numbers as features (`digits`) a network without a tool
    learns some of the sums of digits, which carry over to larger operands (0.61 on average at `error` 10, from 0.47 to
    0.77 by seed), and the advantage is no longer surely above 0.4. That the result agrees with the observation is a
    feature here; a network on bare characters would have to learn to compare first.
    """
    found = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        seen, unseen = sums(rng, PAIRS, SEEN, error), sums(rng, HELD_OUT, UNSEEN, error)
        features = FEATURES | (DIGITS if digits else {})
        network = FeatureNetwork(list(features.values()), list(features), seed=seed)
        reward = ToolReward(network, {"calculator": calculator})
        treated = arm == "treatment"
        network.fit(reward.tell(seen) if treated else seen)
        sides = [[e.responses[k].text for e in unseen] for k in (0, 1)]
        margin = (reward if treated else network).margin([e.prompt_text for e in unseen], *sides)
        found.append(float(((margin > 0) + (margin == 0) / 2).mean()))
    return {"accuracy on unseen operands": found}
