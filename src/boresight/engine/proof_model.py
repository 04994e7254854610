"""Lines of the proof about the model: finite weights, the adapter, dropout, what is trainable, and its gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from boresight.engine.adapters import active_adapters, adapter_names, adapters_off, is_fresh
from boresight.engine.dropout import _is_rate
from boresight.engine.fingerprint import adapter_tensors
from boresight.engine.headform import bare, never_trained
from boresight.engine.proof import Bench, Line, absent, judged

GLIMPSE = 4096
"""Elements of a gradient that are compared, evenly spread over each tensor; its norm is taken over all."""

_ELSEWHERE = ("expert", "vision", "visual", "image", "audio")
"""Parts of names of weights that a few rows of text need not reach: experts that no token was sent to, other senses."""


def finite_line(model: nn.Module) -> Line:
    """Every weight and buffer is a number."""
    bad, total = [], 0
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        total += 1
        if not bool(torch.isfinite(_local(tensor.detach())).all()):
            bad.append(name)
    return judged(
        "weights are numbers",
        float(len(bad)),
        0.0,
        f"no NaN or infinity in {total} tensors",
        f"NaN or infinity in {len(bad)} of {total} tensors, the first is {bad[0] if bad else ''}",
        "give a whole checkpoint: this one was damaged, or its training diverged",
    )


def dropout_line(bench: Bench) -> Line:
    """Two forward passes in training mode agree, and so do two of the reference."""
    residual, who = bench.apart(bench.production, bench.run(bench.tokens)), "policy"
    seen = bench.witness
    if seen is not None:
        again = bench.apart(seen.values[: len(seen.again)], seen.again)
        if not again <= max(residual, 0.0):
            residual, who = again, "reference"
    tolerance = 1e-2 if bench.half else 1e-5

    def why() -> str:
        rates = ", ".join(_rates(bench.model)[:3])
        found = f" ({rates})" if rates and who == "policy" else ""
        return f"dropout is on in the {who}{found}: asked twice, it gives two answers"

    return judged(
        "no dropout",
        residual,
        tolerance,
        "two passes in training mode are alike",
        why,
        "set every dropout to 0: boresight.engine.disable_dropout(model)",
    )


def _rates(model: nn.Module) -> list[str]:
    found = [f"{n}.p" for n, m in model.named_modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0]
    named = [(n, vars(m)) for n, m in model.named_modules()] + [("config", vars(bare(model).config))]
    return found + [f"{n}.{k}={v:g}" for n, values in named for k, v in values.items() if _is_rate(k, v)]


def adapter_lines(bench: Bench, saved: Any = None) -> Iterator[Line]:
    """The adapter is the one that was saved, and it is at work.

    saved: tensor by name as in adapter_model.safetensors, or None for an adapter that was made for this run.
    """
    model = bench.model
    names = active_adapters(model)
    if not adapter_names(model):
        yield absent("adapter as saved", "no adapter")
        yield absent("adapter at work", "no adapter")
        return
    yield absent("adapter as saved", "made for this run") if saved is None else _as_saved(model, names, saved)
    off = [n for n, m in model.named_modules() if getattr(m, "_disable_adapters", False)]
    fresh = bool(names) and all(is_fresh(model, name) for name in names)
    if off or not names or fresh:
        yield judged(
            "adapter at work",
            float(len(off) or not names),
            0.0,
            "new: it changes nothing yet",
            f"the adapter is switched off in {len(off)} layers, the first is {off[0]}"
            if off
            else "no adapter is active",
            "call enable_adapter_layers() and set_adapter(NAME) on the model",
        )
        return
    with torch.no_grad(), adapters_off(model):
        moved = bench.apart(bench.oracle(bench.tokens), bench.truth)
    # Turned round: what has to be large is how far the adapter moves the model from its base.
    verdict = judged("adapter at work", -moved, -1e-6, "", "the adapter was trained, yet changes no log-prob: ignored")
    words = f"moves the model by {moved:.2g} nats a token" if verdict.verdict == "holds" else verdict.words
    mend = "look at target_modules in adapter_config.json: do they fit the base model?"
    yield Line("adapter at work", verdict.verdict, words, moved, None, mend)


def _as_saved(model: Any, names: list[str], saved: Any) -> Line:
    from peft import get_peft_model_state_dict

    loaded = get_peft_model_state_dict(model, adapter_name=names[0] if names else "default")
    lacking = sorted(set(saved) ^ set(loaded))
    worst, where = 0.0, ""
    for name in sorted(set(saved) & set(loaded)):
        ours, theirs = _local(loaded[name].detach()).float().cpu(), saved[name].float()
        apart = float((ours - theirs).abs().max()) if ours.shape == theirs.shape and ours.numel() else 0.0
        apart = math.inf if ours.shape != theirs.shape else apart
        if not apart <= worst:
            worst, where = apart, name
    if lacking:
        worst, where = math.inf, lacking[0]
    scale = max((float(t.float().abs().max()) for t in saved.values() if t.numel()), default=1.0)
    rounded = min((t.dtype.itemsize for t in loaded.values()), default=4) < 4
    return judged(
        "adapter as saved",
        worst,
        scale * (1e-2 if rounded else 0.0),
        f"{len(loaded)} tensors are those of the file",
        f"the adapter was not loaded as it was saved: {where} differs"
        + (f", {len(lacking)} tensors have no counterpart" if lacking else ""),
        "load it on the base model that it was trained on",
    )


def trainable_line(
    model: Any, optimizer_parameters: Iterable[nn.Parameter], adapted: bool, beside: Sequence[str] = ()
) -> Line:
    """What is declared trainable is: all weights, or all of the adapter and nothing else; and the optimizer has it.

    beside: names of further adapters that are trained.
    """
    named = dict(model.named_parameters())
    declared = set(named)
    if adapted:
        own = {id(t) for name in (*active_adapters(model), *beside) for t in adapter_tensors(model, name).values()}
        declared = {name for name, p in named.items() if id(p) in own}
    declared -= never_trained(model)
    trainable = {name for name, p in named.items() if p.requires_grad}
    held = {id(p) for p in optimizer_parameters}
    what = "the adapter's weights" if adapted else "all weights"
    wrong = [
        (sorted(declared - trainable), f"{{n}} tensors are frozen, the first is {{first}}, though {what} are trained"),
        (sorted(trainable - declared), "{n} tensors are trainable and should be frozen, the first is {first}"),
        (
            sorted(n for n in trainable if id(named[n]) not in held),
            "{n} trainable tensors are not in the optimizer, the first is {first}",
        ),
    ]
    found = [words.format(n=len(names), first=names[0]) for names, words in wrong if names]
    return judged(
        "trainable",
        float(sum(len(names) for names, _ in wrong)),
        0.0,
        f"{len(trainable)} tensors ({what}), all in the optimizer",
        "; ".join(found),
        "set requires_grad as adapter= declares it before the optimizer is made",
    )


Gradient = dict[str, tuple[float, Tensor] | None]
"""Of each parameter its gradient's norm and a part of its elements, fp64 on CPU; None where there is no gradient."""


def gradient(bench: Bench, work: Callable[[], None]) -> Gradient:
    """The gradients that `work` leaves behind; there are none before and none after."""
    for parameter in bench.model.parameters():
        parameter.grad = None
    work()
    found: Gradient = {}
    for name, parameter in bench.model.named_parameters():
        if parameter.grad is None:
            found[name] = None
            continue
        flat = _local(parameter.grad.detach()).reshape(-1)
        part = flat[:: max(1, flat.numel() // GLIMPSE)].double().cpu()
        # Of a split tensor this process may hold nothing: what flows there, another one sees.
        found[name] = (float(flat.double().norm()) if flat.numel() else math.inf, part)
    for parameter in bench.model.parameters():
        parameter.grad = None
    return found


def gradient_lines(bench: Bench, production: Gradient, oracle: Gradient, saturated: bool) -> Iterator[Line]:
    """The gradient reaches every trainable parameter and no frozen one; it is the oracle's.

    saturated: the objective itself has no slope on these rows.
    """
    if saturated:
        yield absent("gradient reaches", "the objective has no slope on these rows: they are learnt already")
    else:
        yield _reach_line(bench, production)
    residual, where = gradients_apart(production, oracle)
    yield judged(
        "gradient",
        residual,
        0.25 if bench.half else 1e-2,
        "as through the model's own logits",
        f"the gradient of {where} is not the one through the model's own logits",
        "report it with the model's config.json; proof=off trains in spite of it",
    )


def _reach_line(bench: Bench, production: Gradient) -> Line:
    named = dict(bench.model.named_parameters())
    frozen = [n for n, g in production.items() if g is not None and not named[n].requires_grad]
    dry = [n for n, p in named.items() if p.requires_grad and not _flows(production[n])]
    idle = [n for n in dry if any(word in n.lower() for word in _ELSEWHERE)]
    waiting = [n for n in dry if _waits(n, named)]
    dry = [n for n in dry if n not in idle and n not in waiting]
    # What moves all values alike has no slope in a loss of their differences, but has one in a single value.
    single = gradient(bench, lambda: _one_value(bench)) if dry else {}
    even = [n for n in dry if _flows(single[n])]
    dry = [n for n in dry if n not in even]
    reached = sum(_flows(g) for g in production.values())
    rest = f", {len(waiting)} wait for their B" if waiting else ""
    rest += f", {len(idle)} are not used by these rows" if idle else ""
    rest += f", {len(even)} move all values alike" if even else ""
    lost = len(dry) == sum(p.requires_grad for p in named.values()) - len(idle) - len(waiting)
    adapted = bool(adapter_names(bench.model))
    why = ": the adapter is ignored" if adapted and lost else ": it is cut off from the loss"
    return judged(
        "gradient reaches",
        float(len(dry) + len(frozen)),
        0.0,
        f"{reached} of {sum(p.requires_grad for p in named.values())} tensors{rest}, no frozen one",
        f"no gradient reaches {len(dry)} trainable tensors, the first is {dry[0]}{why}"
        if dry
        else f"a gradient reaches {len(frozen)} frozen tensors, the first is {frozen[0] if frozen else ''}",
        "look for a detach, a no_grad or a disabled adapter on the way from this tensor to the loss",
    )


def gradients_apart(a: Gradient, b: Gradient) -> tuple[float, str]:
    """The largest relative difference of a tensor's gradient, and the tensor's name.

    Relative to the tensor's own norm and, where that is nothing but rounding, to a thousandth of the largest norm.
    """
    largest = max((g[0] for g in b.values() if g and g[1].numel()), default=0.0) or 1.0
    worst, where = 0.0, ""
    for name in b:
        x, y = a.get(name), b[name]
        if all(g is None or not g[1].numel() for g in (x, y)):
            continue
        norm = max(y[0] if y else 0.0, 1e-3 * largest)
        if x is None or y is None:
            apart = (x or y)[0] / norm  # type: ignore[index]
        else:
            apart = max(float((x[1] - y[1]).norm()), abs(x[0] - y[0])) / norm
        if not apart <= worst:
            worst, where = apart, name
    return worst, where


def _one_value(bench: Bench) -> None:
    values = bench.forward(bench.tokens[:1], bench.pad_id)
    total = (values if isinstance(values, Tensor) else values.values).sum()
    if total.requires_grad:
        total.backward()


def _flows(gradient: tuple[float, Tensor] | None) -> bool:
    return gradient is not None and gradient[0] != 0.0


def _waits(name: str, named: dict[str, nn.Parameter]) -> bool:
    """LoRA's A has no gradient while its B is zero, which is how a new adapter starts."""
    for a, b in (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")):
        if a in name:
            partner = named.get(name.replace(a, b))
            return partner is not None and not bool(_local(partner.detach()).any())
    return False


def _local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor, or the tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
