"""Memory: what a run will take, said before its first step; and how to tell that there was not enough.

Weights, gradients and optimizer state are counted. Activations are measured: a short sequence runs through the model at
three lengths, what autograd keeps for the backward pass is added up, and the curve through the three points gives the
largest micro-batch of the data. So it holds for any architecture, attention kernel and precision.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boresight.data.tokens import Tokens
from boresight.engine.flex import serves
from boresight.engine.fused import ROOM as LOGITS
from boresight.engine.head import TILE
from boresight.engine.headform import bare
from boresight.engine.loss import AT_ONCE
from boresight.engine.padded import logprobs
from boresight.engine.scores import scores as sequence_scores
from boresight.errors import InputError, RunError
from boresight.training.load import Kind
from boresight.training.recipe import Recipe
from boresight.training.reporter import Reporter

LENGTHS = (16, 32, 64)
"""Tokens of the sequences that activations are measured on."""
MANY = 16
"""Such sequences at once where rows are made up to a round length, which one of them would not fill."""
ADVICE = "lower micro_tokens (the result stays the same), gradient_checkpointing=true, or a smaller max_length"
GIB = 1 << 30
RAM = "of RAM"
ROOM = 4
"""With this many times the estimate the C library keeps what is freed, which is faster."""


@dataclass(frozen=True)
class Part:
    """One use of memory: its name, bytes, and how they were arrived at."""

    name: str
    bytes: int
    how: str


@dataclass(frozen=True)
class Estimate:
    """What one process will take at its peak, and what there is for it.

    have: bytes that this process may still come to hold, those it holds already included. where: RAM or GPU.
    """

    parts: list[Part]
    have: int
    where: str

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(part.bytes for part in self.parts)

    def rows(self) -> list[tuple[str, str, str]]:
        """The table for people."""
        lines = [(p.name, size(p.bytes), p.how) for p in self.parts]
        return [*lines, ("together", size(self.total), f"of {size(self.have)} {self.where}, for each process")]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, in bytes."""
        return {p.name: p.bytes for p in self.parts} | {"together": self.total, "have": self.have}


def size(count: float) -> str:
    """Bytes for people."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.0f} MiB"


def available(device: torch.device, local_processes: int = 1) -> tuple[int, str]:
    """Bytes that one process may still take where the model is to be, and what they are called.

    RAM is what the system says is free for use, or what the container's limit leaves, shared by the processes here.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device), "on the GPU"
    import psutil

    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (group / "memory.max").read_text().strip(), (group / "memory.current").read_text()
        cached = next(x.split()[1] for x in (group / "memory.stat").read_text().splitlines() if x.startswith("file "))
        if limit.isdigit():
            free = min(free, int(limit) - int(used) + int(cached))
    except (OSError, ValueError, StopIteration):
        pass  # no container, or one of another kind
    return max(0, free) // local_processes, RAM


def before_loading(recipe: Recipe, kind: Kind, device: torch.device, parts: int, local: int, *, half: bool) -> None:
    """Refuse a run whose weights, gradients and optimizer state cannot fit, before anything is loaded.

    parts: processes that the model is split over. local: processes on this machine. half: weights are kept in bf16.
    Raises InputError with what to do. A configuration that cannot be read is left to whoever loads the model.
    """
    try:
        count = parameters(recipe.model, kind)
    except Exception:  # any configuration may be wrong in any way: loading says what is wrong with it
        return
    if recipe.adapter == "qlora":
        return
    each = (2 if half else 4) if recipe.adapter != "none" else 16
    need, (have, where) = count * each // parts, available(device, local)
    what = "weights" if recipe.adapter != "none" else "weights, gradients and the optimizer's state"
    if need > have:
        ways = ["a smaller model"]
        if recipe.adapter == "none":
            ways.insert(0, "adapter=lora")
        if device.type == "cuda" and recipe.adapter != "qlora":
            ways.insert(1, "adapter=qlora")
        if parts == 1:
            ways.append("shard=true on several processes (docs/scale.md)")
        raise InputError(
            f"{recipe.model} has {count / 1e9:.2f} billion parameters: {what} take {size(need)} on each process, and "
            f"there are {size(have)} {where}",
            mend=f"use {', or '.join(ways)}",
        )


def parameters(name: str, kind: Kind) -> int:
    """Parameters of a model, told from its configuration alone; whatever is wrong with that is raised."""
    from boresight.data.pretrained import load_config
    from boresight.training.load import adapter_base, auto_class, hush_transformers

    hush_transformers()
    config = load_config(adapter_base(name) or name)
    with torch.device("meta"):
        model = auto_class(config, kind, name).from_config(config, trust_remote_code=False)
    return sum(p.numel() for p in model.parameters())


def estimate(
    module: nn.Module,
    *,
    scores: bool,
    tokens: int,
    longest: int,
    parts: int,
    checkpointing: bool,
    device: torch.device,
    cast: Callable[[], AbstractContextManager[Any]],
    local_processes: int = 1,
    twin: bool = False,
) -> Estimate:
    """What a step of this module will take. The module is whole and in training mode; no gradient is left on it.

    scores: it is a `ResponseScores`, else a `TokenLogProbs`. tokens: that go through it at once. longest: of these, in
    one sequence. parts: processes that it will be split over. checkpointing: activations will be recomputed. twin: a
    second adapter will be trained beside its own (`twin.py`), whose forward pass is kept with the first.
    """
    model: Any = module.model
    params = {id(p): p for p in model.parameters()}.values()
    weights = _bytes([*params, *model.buffers()])
    trained = [p for p in params if p.requires_grad]
    adapters = 2 if twin else 1
    weights += (adapters - 1) * _bytes(trained)
    gradients = adapters * _bytes(trained)
    state = 2 * gradients
    many = MANY if serves(device) and module.layout != "padded" else 1
    kept = adapters * _curve([_kept(module, scores, n, many, cast) for n in LENGTHS], many, tokens, longest)
    layers, width = _shape(model)
    how = f"{tokens} tokens at once, the longest sequence {longest}"
    if checkpointing and layers:
        kept = kept // layers + layers * tokens * width * 4
        how += f", recomputed in {layers} layers"
    head = 0 if scores else _head(model, tokens)
    largest = max((_bytes(list(m.parameters())) for m in _layers(model)), default=0) if parts > 1 else 0
    held, where = available(device, local_processes)
    held += _resident() if device.type == "cpu" else 0
    uses = [
        Part("weights", weights // parts, _count(list(params)) + (f", split over {parts}" if parts > 1 else "")),
        Part("gradients", gradients // parts, _count(trained * adapters) + " trained"),
        Part("optimizer", state // parts, "two moments of each (AdamW)"),
        Part("activations", kept, how),
        Part("head", head, "logits of a few rows at a time; the head's own gradient"),
    ]
    if largest:
        uses.append(Part("gathered", 2 * largest, "the largest layer, and the one after it, whole"))
    if device.type == "cpu":
        uses.append(Part("program", max(0, _resident() - weights), "Python, libraries and data, held already"))
    return Estimate(uses, held, where)


def show(plan: Estimate, reporter: Reporter) -> None:
    """Print the table, and what to expect where it does not fit."""
    reporter.table("memory", ("use", "estimate", "of what"), plan.rows())
    if plan.where == RAM:
        _ = hand_back() if plan.total * ROOM > plan.have else hold_on()
    if plan.total > plan.have:
        reporter.note(
            f"memory: {size(plan.total)} are more than there are ({size(plan.have)} {plan.where}); where it runs out, "
            f"what goes through at once is halved. Ahead of that: {ADVICE}",
            style="yellow",
        )


def hand_back() -> bool:
    """Have the C library give freed memory of 1 MiB and more back to the system at once; False where it cannot be told.

    glibc by itself keeps up to twice what is in use (measured: docs/scale.md), because it learns to serve large tensors
    from a heap that breaks into pieces. Results stay as they are, to the bit; the system is busier.
    """
    return _mallopt({_MMAP_THRESHOLD: 1 << 20})


def hold_on() -> bool:
    """Have the C library keep what is freed for what comes next; False where it cannot be told.

    Tensors of more than 32 MiB otherwise come from the system and go back to it in every step, page by page. What the
    environment says (MALLOC_MMAP_THRESHOLD_ or GLIBC_TUNABLES) stays.
    """
    if any(name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")):
        return False
    return _mallopt({_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 1 << 26})


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def _mallopt(settings: dict[int, int]) -> bool:
    import ctypes

    try:
        library = ctypes.CDLL("libc.so.6")
        return all(library.mallopt(name, value) for name, value in settings.items())
    except (OSError, AttributeError):
        return False


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on CPU."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in said or "not enough memory" in said)
    )


def exhausted(what: str) -> RunError:
    """The error of a run that has no way left to take less memory by itself."""
    return RunError(f"out of memory {what}", mend=f"{ADVICE}; or adapter=lora, or shard=true on several processes")


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _count(tensors: Sequence[Tensor]) -> str:
    count = sum(t.numel() for t in tensors)
    return f"{count / 1e9:.2f} billion" if count >= 1e8 else f"{count / 1e6:.2f} million"


def _kept(
    module: nn.Module, scores: bool, length: int, many: int, cast: Callable[[], AbstractContextManager[Any]]
) -> int:
    """Bytes that autograd keeps of `many` sequences of `length` tokens, each storage once, parameters left out."""
    device = next(module.parameters()).device
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    mask = np.arange(length) > 0
    sequences = [Tokens(np.full(length, k + 1, np.int32), mask, False) for k in range(many)]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), cast():
        result: Any = (sequence_scores if scores else logprobs)(module, sequences, 0, device)
    total = sum(seen.values())
    del result
    return total


def _curve(kept: Sequence[int], many: int, tokens: int, longest: int) -> int:
    """The parabola through the three measured lengths, for tokens that see `longest` others; never falling."""
    square, slope, start = np.polyfit(np.array(LENGTHS, float), np.array(kept, float), 2) / (many, many, 1)
    square = square if square * longest > 1e-3 * slope else 0.0
    return int(max(0.0, start) + tokens * (max(0.0, slope) + max(0.0, square) * longest))


def _layers(model: Any) -> list[nn.Module]:
    names = set(getattr(bare(model), "_no_split_modules", None) or ())
    return [m for m in bare(model).modules() if type(m).__name__ in names]


def _shape(model: Any) -> tuple[int, int]:
    config = bare(model).config.get_text_config()
    return len(_layers(model)) or int(getattr(config, "num_hidden_layers", 0)), int(getattr(config, "hidden_size", 0))


def _head(model: Any, tokens: int) -> int:
    head = bare(model).get_output_embeddings()
    weight = getattr(head, "weight", None)
    if weight is None:
        return 3 * TILE * 4
    vocabulary, width = weight.shape
    # The logits of the rows that are at once in the head, and the tiles they are worked on in.
    held = vocabulary * min(tokens, AT_ONCE, max(1, LOGITS // vocabulary))
    tiles = 2 * min(TILE, tokens * vocabulary)
    return int((held + tiles + tokens * width) * 4 + (_bytes([weight]) if weight.requires_grad else 0))


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)
