"""Many processes: who does what, what they tell each other, and how a model is split over them.

Two layouts. Data parallel: every process holds the whole model; gradients are added up after the last micro-batch,
once all processes have agreed that nobody ran out of memory. Split (`shard=true`): weights, gradients and optimizer
state lie in parts over the processes (FSDP2), and every forward pass gathers a layer at a time. Both work on GPUs
(NCCL) and CPUs (gloo), under `accelerate launch` and under `torchrun`.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from boresight.data.tokens import Tokens
from boresight.engine.headform import bare
from boresight.engine.layout import by_prompt, packed_length
from boresight.errors import InputError, RunError
from boresight.training.recipe import Recipe

T = TypeVar("T")
Values = list[NDArray[np.float32]]
BUCKET = 1 << 25
"""Elements of gradient that are sent at once: 128 MiB in fp32."""


def is_main() -> bool:
    """Whether this is the main process, told from the launcher's environment before anything is started."""
    return int(os.environ.get("RANK", "0")) == 0


def start(recipe: Recipe, *, bf16: bool) -> Any:
    """The accelerate `Accelerator` of this process: device, precision, the group of processes.

    Raises InputError for what the launcher asks and we do not do: DeepSpeed, FSDP of the first version, offloading.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    asked = {k: os.environ.get(k, "").lower() for k in ("ACCELERATE_USE_DEEPSPEED", "FSDP_VERSION")}
    if asked["ACCELERATE_USE_DEEPSPEED"] == "true":
        raise InputError("launched with DeepSpeed, which was never tried", mend="launch without, and say shard=true")
    if launched_split():
        if asked["FSDP_VERSION"] == "1":
            raise InputError(
                "launched with fsdp_version 1", mend="say --fsdp_version 2, or shard=true without --use_fsdp"
            )
        if os.environ.get("FSDP_OFFLOAD_PARAMS", "").lower() == "true":
            raise InputError("launched with parameter offloading, which was never tried", mend="leave it away")
    # The splitting is done here, by torch's own fully_shard, in one way on every device: accelerate's plugin is for
    # accelerators alone (1.15 passes it over on CPU without a word).
    before = os.environ.pop("ACCELERATE_USE_FSDP", None)
    # accelerate keeps the precision of a process's first run for ever; a later run here may have another.
    AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no", cpu=not torch.accelerator.is_available())
    finally:
        if before is not None:
            os.environ["ACCELERATE_USE_FSDP"] = before
    if accelerator.num_processes > 1:
        atexit.register(_leave)
    elif recipe.shard or launched_split():
        raise InputError("shard=true with one process: there is nothing to split over", mend="launch several processes")
    return accelerator


def launched_split() -> bool:
    """Whether `accelerate launch --use_fsdp` started this process."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def abandon() -> None:
    """Leave the group of processes without a farewell: after an error the others may be waiting for something else."""
    atexit.unregister(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@cache
def _control() -> Any:
    """A group for waiting and short messages. Its patience is long: one process may tokenise for hours."""
    return dist.new_group(backend="gloo", timeout=timedelta(days=7))


def exchange(accelerator: Any, value: T) -> list[T]:
    """What each process says, in their order, on all of them."""
    if accelerator.num_processes == 1:
        return [value]
    said: list[Any] = [None] * accelerator.num_processes
    dist.all_gather_object(said, value, group=_control())
    return said


def together(accelerator: Any, work: Callable[[], T], *, main_first: bool = True) -> T:
    """Do `work` on every process, on the main process first; where it fails on one it fails on all.

    An error on one process alone would leave the others waiting for it. Theirs is a short RunError.
    """
    if accelerator.num_processes == 1:
        return work()
    done: list[T] = []
    for turn in (True, False) if main_first else (None,):
        error: Exception | None = None
        if turn is None or turn is accelerator.is_main_process:
            try:
                done.append(work())
            except Exception as caught:
                error = caught
        failed = exchange(accelerator, error is not None)
        if error is not None:
            raise error
        if any(failed):
            raise elsewhere(failed.index(True))
    return done[0]


def elsewhere(process: int | None = None) -> RunError:
    """The error of a process that stops because another one did."""
    return RunError(
        f"process {process} stopped" if process is not None else "another process stopped", mend="see its message"
    )


def agree(accelerator: Any, code: int) -> int:
    """The largest of the codes that the processes bring, on all of them."""
    if accelerator.num_processes == 1:
        return code
    told = torch.tensor([code], dtype=torch.int32)
    dist.all_reduce(told, dist.ReduceOp.MAX, group=_control())
    return int(told)


def add_up(accelerator: Any, values: Tensor) -> Tensor:
    """The sum over all processes of a small tensor, in its own precision; one on a GPU is not waited for."""
    if accelerator.num_processes > 1:
        values = values.clone()
        dist.all_reduce(values, group=_control() if values.device.type == "cpu" else None)
    return values


def equalise(accelerator: Any, parameters: Sequence[Tensor]) -> None:
    """Give every process the main process's values, bit for bit."""
    if accelerator.num_processes > 1:
        for p in parameters:
            dist.broadcast(p.data, 0)


def add_gradients(accelerator: Any, parameters: Sequence[nn.Parameter]) -> None:
    """Add up the gradients of all processes, in place; one that only some processes have counts as 0 elsewhere."""
    if accelerator.num_processes == 1:
        return
    has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32)
    dist.all_reduce(has, dist.ReduceOp.MAX, group=_control())
    grads: list[Tensor] = []
    for p, anywhere in zip(parameters, has.tolist(), strict=True):
        if anywhere:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            grads.append(p.grad)
    for bucket in _buckets(grads):
        flat = torch.cat([g.reshape(-1) for g in bucket])
        dist.all_reduce(flat)
        for g, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            g.copy_(part.view_as(g))


def _buckets(grads: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for grad in grads:
        if bucket and (size + grad.numel() > BUCKET or grad.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(grad)
        size += grad.numel()
    if bucket:
        yield bucket


def split(module: nn.Module, device: torch.device) -> nn.Module:
    """Split the module's weights over all processes: each of its model's layers by itself, the rest together.

    module: a `TokenLogProbs` or `ResponseScores`; everything has to go through its forward. Raises InputError for a
    model that does not say what its layers are, and for quantised weights.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model: Any = bare(module.model)
    layers = set(getattr(model, "_no_split_modules", None) or ())
    if not layers:
        raise InputError(f"shard=true: {type(model).__name__} does not say what its layers are", mend="leave it away")
    if any(not p.is_floating_point() for p in model.parameters()):
        raise InputError("shard=true: quantised weights cannot be split", mend="use adapter=lora")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for part in model.modules():
        if type(part).__name__ in layers:
            fully_shard(part, mesh=mesh)
    fully_shard(module, mesh=mesh, reshard_after_forward=True)
    return module


def through(module: Any, work: Callable[[], T]) -> T:
    """Do `work` inside one call of a split module, so that all that its layers do not hold is gathered meanwhile."""
    own = module.forward
    module.forward = work
    try:
        with torch.no_grad():
            done: T = module()
    finally:
        module.forward = own
    return done


def is_split(tensor: Tensor) -> bool:
    """Whether the tensor lies in parts over the processes."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; every process has to ask."""
    return tensor.full_tensor() if is_split(tensor) else tensor  # type: ignore[attr-defined]


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor laid out as the parameter is."""
    value = value.to(parameter.device, parameter.dtype)
    if not is_split(parameter):
        return value
    from torch.distributed.tensor import distribute_tensor

    p: Any = parameter
    return distribute_tensor(value, p.device_mesh, p.placements)


def spread(accelerator: Any, compute: Callable[[list[Tokens]], Values]) -> Callable[[list[Tokens]], Values]:
    """`compute`, its sequences dealt out to the processes; every process gets all values, and has to ask for the same.

    Responses to one prompt go to one process, which computes the prompt once; those with the most tokens are dealt
    first. A split model is called equally often by all processes (`engine.padded.together`).
    """
    count, mine = accelerator.num_processes, accelerator.process_index
    if count == 1:
        return compute

    def dealt(sequences: list[Tokens]) -> Values:
        groups = sorted(by_prompt(sequences), key=lambda g: -packed_length([sequences[i] for i in g]))
        places = [i for group in groups[mine::count] for i in group]
        values = compute([sequences[i] for i in places])
        found: dict[int, NDArray[np.float32]] = {}
        for part in exchange(accelerator, dict(zip(places, values, strict=True))):
            found |= part
        return [found[i] for i in range(len(sequences))]

    return dealt
