"""Training in the exact worlds: Adam on tables, all seeds at once wherever an objective lets them be apart."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from boresight.errors import InputError
from boresight.lab.exact import Moment
from boresight.lab.grid import Drawn, generator
from boresight.lab.policies import Policy
from boresight.objectives import Objective, find

D = TypeVar("D", bound=Drawn)
P = TypeVar("P", bound=Policy)
P_co = TypeVar("P_co", bound=Policy, covariant=True)


class Fits(Protocol[P_co]):
    """A world whose policies `fit` can train."""

    def policy(self, seeds: int, **options: Any) -> P_co:
        """A policy for each seed, ready to be trained; the options are those of `fit`."""


def fit(
    world: Fits[P],
    objective: str | Objective | Callable[..., Tensor],
    *,
    pairs: Drawn,
    hyperparameters: Mapping[str, Any] | None = None,
    steps: int = 300,
    lr: float = 0.05,
    batch: int | None = None,
    seed: int = 0,
    start: Tensor | Policy | None = None,
    reference: Tensor | Policy | None = None,
    others: Sequence[Tensor | Policy] = (),
    features: Tensor | None = None,
    learned: bool = False,
    samples: int = 4,
    twin_lr: float = 0.1,
    optimizer: str = "adam",
    decay: bool = True,
    watch: Callable[[int, P], object] | None = None,
) -> P:
    """Train a policy from the reference, or from `start`, with the learning rate falling linearly to 0.

    objective: a registered name, what `find` returns, or the decorated function itself. pairs: data drawn by the world,
    Pairs (they serve every objective), Lists or Responses; the policy gets one table for each of their seeds.
    batch: examples of each seed in a step, drawn afresh from `seed` and the data's own seeds; all of them if not given.
    start, reference, others: logits (with or without seeds in front) or policies: where training begins (at the
    reference if not given), what the objective knows as reference (the world's own if not given), and its further
    references. features, learned: a policy of limited capacity, see the world's `policy`.
    samples: responses drawn from the reference for each example, once. twin_lr: the slow twin's share of `lr`.
    optimizer: "adam", or "sgd" (the bare gradient). decay: False keeps the learning rate as it is.
    watch(step, policy): called after each step, counted from 1, without gradient.

    A seed comes out as it would alone. What was trained beside the tables is `policy.heads`, what is remembered
    `policy.states`, one for each seed, and the twin `policy.twin`. The loss is the weighted mean over each seed's
    examples, or over their tokens where an objective is `per="token"`. Raises InputError if the function was not
    registered with @objective, or an option cannot be used.
    """
    known = find(objective) if isinstance(objective, str) else getattr(objective, "__objective__", objective)
    if not isinstance(known, Objective):
        raise InputError(f"{objective!r} is not an objective", mend="decorate it with boresight.objective(...)")
    values = dict(hyperparameters or {})
    options = {"start": start, "reference": reference, "others": others, "features": features, "learned": learned}
    policy = world.policy(len(pairs.names), **options)
    groups = [(policy.leaves(), lr)]
    if "twin" in known.needs:
        policy.twin = world.policy(len(pairs.names), **options)
        groups.append((policy.twin.leaves(), lr * twin_lr))
    _equip(policy, known, values, seed, pairs.names)
    if policy.heads:
        groups.append(([p for each in policy.heads for m in each.values() for p in m.parameters()], lr))
    pairs = _dressed(policy, known, pairs, seed, samples)
    chosen = _optimizer(optimizer, groups)
    memo: dict[Any, Any] = {}
    for step in range(steps):
        if decay:
            for group, (_, rate) in zip(chosen.param_groups, groups, strict=True):
                group["lr"] = rate * (1 - step / steps)
        some = _drawn(pairs, batch, seed, step)
        if "noise" in known.needs:
            some = some.knowing(noise=_noise(policy, some, seed, step))
        chosen.zero_grad()
        memo = memo if batch is None else {}
        loss = _each(policy, known, some, values, step / steps, memo, remember=True).sum()
        if loss.requires_grad:
            loss.backward()
        chosen.step()
        if watch is not None:
            with torch.no_grad():
                watch(step + 1, policy)
    return policy


def losses(
    policy: Policy,
    objective: str | Objective,
    pairs: Drawn,
    hyperparameters: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    samples: int = 4,
    progress: float = 0.0,
) -> Tensor:
    """The loss of each seed on its data, (seeds,), as `fit` makes it at its first step; gradients flow.

    With the heads and states that the policy has, if it has any; no state is moved on.
    """
    known = find(objective) if isinstance(objective, str) else objective
    values = dict(hyperparameters or {})
    _equip(policy, known, values, seed, pairs.names)
    some = _dressed(policy, known, pairs, seed, samples)
    if "noise" in known.needs:
        some = some.knowing(noise=_noise(policy, some, seed, 0))
    return _each(policy, known, some, values, progress, {}, remember=False)


def _equip(policy: Policy, known: Objective, values: dict[str, Any], seed: int, names: Sequence[int]) -> None:
    """Give a policy the heads and states that the objective has and it does not, for each seed its own."""
    if known.heads is not None and not policy.heads:
        policy.heads = [_heads(policy, known, values, seed, name) for name in names]
    if known.state and not policy.states:
        start = {name: torch.tensor(value, dtype=torch.float64) for name, value in known.state.items()}
        policy.states = [dict(start) for _ in names]


def _each(
    policy: Policy,
    known: Objective,
    data: Drawn,
    values: dict[str, Any],
    progress: float,
    memo: dict[Any, Any],
    *,
    remember: bool,
) -> Tensor:
    """The loss of each seed, (seeds,)."""
    count = policy.seeds
    if count > 1 and _alone(known):
        ones = ((policy.of_seed(i), data.of_seed(i), memo.setdefault(i, {})) for i in range(count))
        return torch.cat([_each(one, known, some, values, progress, m, remember=remember) for one, some, m in ones])
    state = policy.states[0] if policy.states else {}
    heads = policy.heads[0] if policy.heads else {}
    batch, weight = policy.batch(known, data, Moment(progress, dict(state), heads, memo))
    found = known.function(batch, **values).view_as(weight)
    units = _tokens(batch).view_as(weight) if known.per == "token" else torch.ones_like(weight)
    if remember and known.update is not None:
        with torch.no_grad():
            state.update({name: new.detach().double() for name, new in known.update(batch, **values).items()})
    return (found * weight).sum(1) / (units * weight).sum(1)


def _alone(known: Objective) -> bool:
    """Whether each seed needs a batch of its own: something in it is one number, or one module, for all examples."""
    shared = {"mismatched_kl", "gradient_norms"} & set(known.needs)
    return known.over == "batch" or known.heads is not None or bool(shared)


def _tokens(batch: Any) -> Tensor:
    """Response tokens of each example."""
    sides = [batch.policy] if hasattr(batch.policy, "values") else [batch.policy.chosen, batch.policy.rejected]
    lengths = torch.stack([side.lengths() for side in sides]).sum(0)
    return batch.sum(lengths) if hasattr(batch, "list_of") else lengths


def _heads(policy: Policy, known: Objective, values: dict[str, Any], seed: int, name: int) -> dict[str, Any]:
    """One seed's small modules, in float64."""
    assert known.heads is not None
    on_tokens = {"hidden", "reference_hidden"} & set(known.needs)
    width = policy.width if on_tokens else policy.world.embedding.shape[1]
    everything = {n: h.default for n, h in known.hyperparameters.items()} | values
    wanted = inspect.signature(known.heads).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in wanted.values()):
        everything = {n: v for n, v in everything.items() if n in wanted}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator("heads", seed, name).initial_seed())
        return {n: module.double() for n, module in known.heads(width, **everything).items()}


def _dressed(policy: Policy, known: Objective, data: D, seed: int, samples: int) -> D:
    """The data with what is computed once, before training."""
    rows = data.rows()
    if "samples" in known.needs and "samples" not in data.extra:
        drawn = [
            policy.world.sample(table, prompt, samples, generator("samples", seed, name))
            for table, prompt, name in zip(policy.reference, rows.prompt[:, :, 0], rows.names, strict=True)
        ]
        data = data.knowing(samples=torch.stack(drawn))
    if "difference" in known.needs and "difference" not in data.extra:
        data = data.knowing(difference=policy.world.differences(rows))
    return data


def _drawn(data: D, batch: int | None, seed: int, step: int) -> D:
    if batch is None:
        return data
    columns = [torch.randint(data.size, (batch,), generator=generator("batch", seed, n, step)) for n in data.names]
    return data.take(torch.stack(columns))


def _noise(policy: Policy, data: Drawn, seed: int, step: int) -> Tensor:
    """A number in [0, 1) for each token, (seeds, n, K, longest), by seed, step and place."""
    shape = (*data.rows().prompt.shape[1:], policy.world.longest)
    each = [torch.rand(shape, generator=generator("noise", seed, n, step), dtype=torch.float64) for n in data.names]
    return torch.stack(each)


def _optimizer(name: str, groups: Sequence[tuple[list[Tensor], float]]) -> torch.optim.Optimizer:
    made = [{"params": leaves, "lr": lr} for leaves, lr in groups]
    if name == "adam":
        return torch.optim.Adam(made)
    if name == "sgd":
        return torch.optim.SGD(made)
    raise InputError(f"optimizer {name!r} is not one that the lab has", mend='give "adam" or "sgd"')
