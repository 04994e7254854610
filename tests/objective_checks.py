"""What every objective must satisfy. Each `check_*` takes an `Objective`; nothing here knows any method by name.

`make` builds a batch of the kind an objective takes from plain lists, which the oracles read as well.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import oracles
from boresight.objectives import LogProbs, Objective, PairLogProbs, PairScores, PairSide, ResponseLogProbs
from oracles import Pair, Scores, Single

Plain = Pair | Single | Scores


class Made:
    """A batch, and the leaves that gradients reach: each a list with one tensor for each example."""

    def __init__(self, known: Objective, examples: Sequence[Plain], dtype: torch.dtype) -> None:
        def leaves(name: str) -> list[Tensor]:
            return [torch.tensor(getattr(e, name), dtype=dtype, requires_grad=True) for e in examples]

        def fixed(name: str) -> LogProbs | None:
            if "reference" not in known.needs:
                return None
            return LogProbs.from_sequences([torch.tensor(getattr(e, name), dtype=dtype) for e in examples])

        self.better: list[Tensor] = []
        self.worse: list[Tensor] = []
        self.batch: PairLogProbs | ResponseLogProbs | PairScores
        if known.takes is PairLogProbs:
            self.better, self.worse = leaves("chosen"), leaves("rejected")
            policy = PairSide(LogProbs.from_sequences(self.better), LogProbs.from_sequences(self.worse))
            chosen, rejected = fixed("ref_chosen"), fixed("ref_rejected")
            self.batch = PairLogProbs(policy, PairSide(chosen, rejected) if chosen and rejected else None)
        elif known.takes is PairScores:
            self.better, self.worse = leaves("chosen"), leaves("rejected")
            empty = torch.zeros(0, dtype=dtype)
            self.batch = PairScores(*(torch.stack(s) if s else empty for s in (self.better, self.worse)))
        else:
            self.better = leaves("policy")
            kl = examples[0].mismatched_kl if examples else 0.0  # type: ignore[union-attr]
            self.batch = ResponseLogProbs(
                LogProbs.from_sequences(self.better),
                fixed("reference"),
                desirable=torch.tensor([e.desirable for e in examples], dtype=torch.bool)  # type: ignore[union-attr]
                if "labels" in known.needs
                else None,
                mismatched_kl=torch.tensor(kl, dtype=dtype) if "mismatched_kl" in known.needs else None,
            )

    def gradients(self, losses: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients of the summed loss at the better and the worse side's leaves."""
        leaves = [*self.better, *self.worse]
        found = torch.autograd.grad(losses.sum(), leaves, allow_unused=True)
        full = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]
        return full[: len(self.better)], full[len(self.better) :]


def losses_of(
    known: Objective, examples: Sequence[Plain], dtype: torch.dtype = torch.float64, **values: Any
) -> tuple[Tensor, Made]:
    made = Made(known, examples, dtype)
    return known.function(made.batch, **values), made


def draw_examples(known: Objective, rng: random.Random, count: int, longest: int = 9) -> list[Plain]:
    """Examples at random: log-probs of a plausible model, lengths from 1 to `longest`, references nearby."""

    def tokens(length: int) -> list[float]:
        return [-rng.expovariate(0.7) - 1e-3 for _ in range(length)]

    def near(values: list[float]) -> list[float]:
        return [min(-1e-3, v + rng.gauss(0, 0.5)) for v in values]

    kl = rng.gauss(0.3, 1)
    examples: list[Plain] = []
    for index in range(count):
        a, b = tokens(rng.randint(1, longest)), tokens(rng.randint(1, longest))
        if known.takes is PairLogProbs:
            examples.append(Pair(a, b, near(a), near(b)))
        elif known.takes is PairScores:
            examples.append(Scores(rng.gauss(0, 2), rng.gauss(0, 2)))
        else:
            examples.append(Single(a, near(a), index % 2 == 0, kl))
    return examples


def pair_with_margin(known: Objective, margin: float, length: int = 1, level: float | None = None) -> Plain:
    """A pair whose policy margin is `margin` nats summed and whose reference margin is 0, around a common level."""
    if known.takes is PairScores:
        return Scores(margin / 2, -margin / 2)
    level = -abs(margin) - 1.0 if level is None else level
    side = [(level + margin / 2) / length] * length, [(level - margin / 2) / length] * length
    base = [level / length] * length
    return Pair(*side, base, base)


def draw_hyperparameters(known: Objective, rng: random.Random) -> dict[str, Any]:
    """Hyperparameters at random around the defaults, among those that the objective accepts."""

    def draw(default: Any) -> Any:
        if isinstance(default, bool):
            return rng.random() < 0.5
        if isinstance(default, str):
            return default
        value = rng.uniform(0, 0.4) if default == 0 else default * math.exp(rng.uniform(-0.9, 0.9))
        return round(value) if isinstance(default, int) else value

    one = draw_examples(known, random.Random(0), 1)
    for _ in range(50):
        values = {name: draw(h.default) for name, h in known.hyperparameters.items()}
        try:
            losses_of(known, one, **values)
        except ValueError:
            continue
        return values
    raise AssertionError(f"{known.id} accepts no hyperparameters near its defaults")


def settings(known: Objective, count: int = 5) -> list[dict[str, Any]]:
    """The defaults, and `count` random hyperparameter settings."""
    rng = random.Random(known.id)
    return [{}, *(draw_hyperparameters(known, rng) for _ in range(count))]


def units(known: Objective, examples: Sequence[Plain]) -> int:
    """What the loop divides the summed loss of the global batch by: its examples, or its response tokens."""
    if known.per == "example":
        return len(examples)
    return sum(len(e.policy) for e in examples)  # type: ignore[union-attr]


def check_agrees_with_independent_rewrite(known: Objective) -> None:
    oracle, rng = oracles.find(known.id), random.Random(1)
    defaults = {n: h.default for n, h in known.hyperparameters.items()}
    for values in settings(known, 20):
        examples = draw_examples(known, rng, 6)
        losses, _ = losses_of(known, examples, **values)
        expected = [oracle(e, **(defaults | values)) for e in examples]
        torch.testing.assert_close(losses.detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


def check_one_loss_per_example(known: Objective) -> None:
    rng = random.Random(2)
    for count in (0, 1, 2, 5):
        for dtype in (torch.float32, torch.float64):
            examples = draw_examples(known, rng, count)
            losses, _ = losses_of(known, examples, dtype)
            assert losses.shape == (count,)
            assert count == 0 or losses.dtype == dtype


def check_never_broadcasts(known: Objective) -> None:
    """As many tokens in each response as there are examples: a (batch,) by (batch, tokens) mix-up would not raise."""
    oracle, rng = oracles.find(known.id), random.Random(3)
    defaults = {n: h.default for n, h in known.hyperparameters.items()}
    examples = [draw_examples(known, rng, 1)[0] for _ in range(4)]
    for e in examples:
        for name, value in vars(e).items():
            if isinstance(value, list):
                setattr(e, name, [-0.1 - rng.random() for _ in range(4)])
        if isinstance(e, Single):
            e.mismatched_kl = 0.5
    losses, _ = losses_of(known, examples)
    torch.testing.assert_close(
        losses.detach(), torch.tensor([oracle(e, **defaults) for e in examples], dtype=torch.float64)
    )


def check_examples_are_independent(known: Objective) -> None:
    """A batch is its examples: alone, permuted or together, each has the same loss and the same gradient."""
    examples = draw_examples(known, random.Random(4), 7)
    for values in settings(known, 2):
        together, made = losses_of(known, examples, **values)
        better, worse = made.gradients(together)
        order = random.Random(5).sample(range(7), 7)
        permuted, _ = losses_of(known, [examples[i] for i in order], **values)
        torch.testing.assert_close(permuted, together[order], rtol=1e-13, atol=1e-15)
        for i, example in enumerate(examples):
            alone, one = losses_of(known, [example], **values)
            torch.testing.assert_close(alone[0], together[i], rtol=1e-13, atol=1e-15)
            one_better, one_worse = one.gradients(alone)
            torch.testing.assert_close(one_better[0], better[i], rtol=1e-13, atol=1e-15)
            if worse:
                torch.testing.assert_close(one_worse[0], worse[i], rtol=1e-13, atol=1e-15)


def check_micro_batches_make_the_whole(known: Objective) -> None:
    """1x8 = 2x4 = 8x1, once the loop divides by global counts."""
    examples = draw_examples(known, random.Random(6), 8)

    whole = units(known, examples)

    def gradients(size: int) -> tuple[list[Tensor], list[Tensor]]:
        better: list[Tensor] = []
        worse: list[Tensor] = []
        for start in range(0, 8, size):
            losses, made = losses_of(known, examples[start : start + size])
            found = made.gradients(losses.sum() / whole)
            better, worse = better + found[0], worse + found[1]
        return better, worse

    for size in (1, 2):
        for side, whole_side in zip(gradients(size), gradients(8), strict=True):
            for a, b in zip(side, whole_side, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


def check_finite_at_extremes(known: Objective) -> None:
    extremes: dict[str, list[Plain]] = {}
    if known.takes is ResponseLogProbs:
        for label in (True, False):
            for kl in (-1e4, 0.0, 1e4):
                extremes[f"{label} {kl}"] = [
                    Single([0.0], [0.0], label, kl),
                    Single([0.0], [-1e4], label, kl),
                    Single([-1e4], [0.0], label, kl),
                    Single([-1e-12], [0.0], label, kl),
                    Single([-2.0] * 4096, [-2.1] * 4096, label, kl),
                    Single([0.0] * 4096, [0.0] * 4096, label, kl),
                ]
    else:
        margins = (-1e4, -1e-12, 0.0, 1e-12, 1e4)
        extremes["one token"] = [pair_with_margin(known, m) for m in margins]
        extremes["many tokens"] = [pair_with_margin(known, m, 4096) for m in margins]
    if known.takes is PairLogProbs:
        sure, hopeless = [0.0], [-1e4]
        extremes["certain"] = [
            Pair(a, b, c, d)
            for a in (sure, hopeless, [0.0] * 4096)
            for b in (sure, hopeless, [-1e-9])
            for c in (sure, hopeless)
            for d in (sure, hopeless)
        ]
        for p in extremes["certain"]:
            p.ref_chosen = p.ref_chosen * len(p.chosen)  # type: ignore[union-attr]
    for name, examples in extremes.items():
        for values in settings(known):
            for dtype in (torch.float32, torch.float64):
                losses, made = losses_of(known, examples, dtype, **values)
                assert losses.isfinite().all(), f"{known.id} {values}, {name}, {dtype}: {losses}"
                better, worse = made.gradients(losses)
                assert all(g.isfinite().all() for g in better + worse), f"{known.id} {values}, {name}, {dtype}"


def check_finite_where_policy_is_reference(known: Objective) -> None:
    """Step 0 of every run: policy = reference to the last bit, or the same response on both sides."""
    losses, made = losses_of(known, [at_zero_margin(known, n) for n in (1, 3, 50)])
    better, worse = made.gradients(losses)
    assert losses.isfinite().all()
    assert all(g.isfinite().all() for g in better + worse)
    assert any(bool((g != 0).any()) for g in better + worse), "nothing would be learnt"


def at_zero_margin(known: Objective, length: int, level: float = -1.3) -> Plain:
    tokens = [level] * length
    if known.takes is PairScores:
        return Scores(0.0, 0.0)
    if known.takes is ResponseLogProbs:
        return Single(tokens, tokens, True, 0.0)
    other = tokens if "reference" not in known.needs else [level / 2] * (length + 2)
    return Pair(tokens, other, tokens, other)


def check_closed_form_at_zero_margin(known: Objective) -> None:
    if known.at_zero is None:
        return  # some have none: the golden tests hold their values at zero margin
    for values in settings(known):
        for length in (1, 4):
            examples = [at_zero_margin(known, length)] * 3
            losses, _ = losses_of(known, examples, **values)
            expected = known.closed_form(nll=1.3, **values)
            if expected is None:
                continue  # no closed form at these values
            assert losses.sum().item() / units(known, examples) == pytest.approx(expected, rel=1e-12)


def check_falls_towards_its_target(known: Objective) -> None:
    """As the margin grows the loss falls: for ever, or to a target at a positive margin and up again beyond it."""
    if known.takes is ResponseLogProbs:
        return
    margins = [m / 4 for m in range(-240, 241)]
    for values in settings(known):
        for length in (1, 7):
            examples = [pair_with_margin(known, m, length, level=-100.0) for m in margins]
            losses = losses_of(known, examples, **values)[0].detach()
            lowest = int(losses.argmin())
            slack = 1e-9 * losses.abs().max()
            assert margins[lowest] > 0, f"{known.id} {values} is least at margin {margins[lowest]}"
            assert (losses[: lowest + 1].diff() <= slack).all(), f"{known.id} {values} rises before its target"
            assert (losses[lowest:].diff() >= -slack).all(), f"{known.id} {values} has more than one target"


def has_target(known: Objective, values: dict[str, Any]) -> bool:
    """Whether too large a margin raises the loss again: a property of the loss, found and not declared."""
    far, further = (losses_of(known, [pair_with_margin(known, m)], **values)[0].item() for m in (5e3, 1e4))
    return further > far


def check_gradient_signs(known: Objective) -> None:
    """Raising the chosen never raises the loss, raising the rejected never lowers it.

    Everywhere, or up to zero margin where the loss has a target beyond it. Labelled responses: raising a desirable
    one never raises the loss, raising an undesirable one never lowers it; without labels every response is wanted.
    """
    rng = random.Random(7)
    for values in settings(known):
        if known.takes is ResponseLogProbs:
            examples = draw_examples(known, rng, 20)
            losses, made = losses_of(known, examples, **values)
            gradients, _ = made.gradients(losses)
            for example, gradient in zip(examples, gradients, strict=True):
                wanted = example.desirable or "labels" not in known.needs  # type: ignore[union-attr]
                assert (gradient <= 0).all() if wanted else (gradient >= 0).all()
            continue
        largest = 0.0 if has_target(known, values) else 40.0
        examples = [pair_with_margin(known, rng.uniform(-40, largest), rng.randint(1, 6)) for _ in range(40)]
        losses, made = losses_of(known, examples, **values)
        better, worse = made.gradients(losses)
        assert all((g <= 0).all() for g in better), f"{known.id} {values}: raising the chosen raises the loss"
        assert all((g >= 0).all() for g in worse), f"{known.id} {values}: raising the rejected lowers the loss"
        assert any((g < 0).any() for g in better), f"{known.id} {values}: nothing is learnt from the chosen"
        assert any((g > 0).any() for g in worse), f"{known.id} {values}: nothing is learnt from the rejected"


def check_float32_is_close_to_float64(known: Objective) -> None:
    rng = random.Random(8)
    for values in settings(known):
        examples = draw_examples(known, rng, 8, longest=60)
        narrow, narrow_made = losses_of(known, examples, torch.float32, **values)
        wide, wide_made = losses_of(known, examples, torch.float64, **values)
        # sums of about 60 tokens carry an error of a few 1e-5 nats, and a loss may multiply it by its own slope
        torch.testing.assert_close(narrow.double(), wide, rtol=2e-5, atol=2e-4)
        for a, b in zip(narrow_made.gradients(narrow), wide_made.gradients(wide), strict=True):
            for x, y in zip(a, b, strict=True):
                torch.testing.assert_close(x.double(), y, rtol=1e-3, atol=1e-4)


def check_unusable_hyperparameters_are_named(known: Objective) -> None:
    one = draw_examples(known, random.Random(9), 1)
    for name, h in known.hyperparameters.items():
        if h.kind not in (int, float):
            continue
        for bad in (-1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match=rf"\b{name}\b"):
                losses_of(known, one, **{name: bad})


def check_every_hyperparameter_has_effect(known: Objective) -> None:
    examples = draw_examples(known, random.Random(10), 8)
    base = losses_of(known, examples)[0]
    for name, h in known.hyperparameters.items():
        draws = [draw_hyperparameters(known, random.Random(s))[name] for s in range(20)]
        other = next((d for d in draws if d != h.default), None)
        if other is None:
            continue  # a word: the golden tests know what it may be
        changed = losses_of(known, examples, **{name: other})[0]
        assert not torch.allclose(changed, base, rtol=1e-6), f"{known.id}: {name}={other} changes nothing"


def check_declares_what_it_is(known: Objective) -> None:
    text = inspect.getdoc(known.function) or ""
    assert "Returns" in text, f"{known.id}: the docstring does not say what it returns"
    assert known.summary.endswith("."), f"{known.id}: the docstring's first line is not a sentence"
    assert len(known.summary) <= 120
    assert known.paper, f"{known.id}: no paper"
    assert known.lr_source, f"{known.id}: no source for its learning rate"
    assert 0 < known.lr < 1e-3, f"{known.id}: lr {known.lr} is none for full training"
    for h in known.hyperparameters.values():
        assert h.source, f"{known.id}: no source for {h.name}={h.default}"
        if h.kind is not bool:
            assert h.name in text, f"{known.id}: the docstring does not mention {h.name}"


CHECKS: dict[str, Callable[[Objective], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}
"""Every check by name; one that is written above is run, there is no list to forget."""
