"""What an objective may need beyond log-probs of response tokens: hidden states, entropy, KL to the reference.

The reference's distributions are too large to be kept, so a reference that they are needed of stays at hand: the
policy's base under its adapter, another model, or a frozen copy of the policy as it was at the start.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from boresight.engine.headform import bare, is_sharded
from boresight.engine.padded import TokenLogProbs, inner
from boresight.engine.reference import Reference
from boresight.engine.seq2seq import late_bias
from boresight.engine.statistics import Head, entropy, kl
from boresight.errors import RunError
from boresight.objectives import LogProbs, Objective
from boresight.training.microbatch import Micro

if TYPE_CHECKING:
    from boresight.training.job import Job

OF_REFERENCE = frozenset({"reference_hidden", "token_kl", "reference_kl"})
STATES = OF_REFERENCE | {"hidden", "entropy"}
"""The needs for which hidden states are looked at."""


def through_states(objective: Objective) -> bool:
    """Whether hidden states are needed, so that head and loss cannot be computed in one pass."""
    return bool(STATES & set(objective.needs))


@dataclass(frozen=True)
class Live:
    """A reference at hand: `module` inside `switch()`."""

    module: nn.Module
    switch: Callable[[], AbstractContextManager[None]]


def keep(reference: Reference, policy: Any, module: TokenLogProbs, objective: Objective) -> Live | None:
    """The reference ready to be asked during training, where the objective needs more than its log-probs."""
    if not OF_REFERENCE & set(objective.needs):
        return None
    if reference.model is not policy:
        other = type(module)(reference.model, layout=module.layout)
        return Live(other.eval().requires_grad_(False), reference.switch)
    if reference.based:
        return Live(module, reference.switch)
    frozen = copy.deepcopy(policy).eval().requires_grad_(False)
    return Live(type(module)(frozen, layout=module.layout), reference.switch)


def with_states(job: Job, micro: Micro, known: dict[str, Tensor]) -> LogProbs:
    """The policy's log-probs of the micro-batch's tokens, with all that the objective needs of each; gradients flow."""
    needs = job.objective.needs
    batch = inner(job.module).arrange(micro.tokens, job.pad_id).to(job.device)
    values, hidden = job.module(**batch.inputs(), states=True)
    found = dict(known)
    if "hidden" in needs:
        found["hidden"] = hidden.float()
    if "entropy" in needs:
        found["entropy"] = entropy(head_of(job.module), hidden)
    if job.live is not None:
        with torch.no_grad(), job.live.switch():
            _, theirs = job.live.module(**batch.inputs(), states=True)
        mine, other = head_of(job.module), head_of(job.live.module, base=job.live.module is job.module)
        if "reference_hidden" in needs:
            found["reference_hidden"] = theirs.float()
        if "token_kl" in needs:
            found["token_kl"] = kl(mine, hidden, other, theirs)
        if "reference_kl" in needs:
            found["reference_kl"] = kl(other, theirs, mine, hidden)
    return LogProbs(values, batch.owner, batch.count, found)


def head_of(module: Any, *, base: bool = False) -> Head:
    """What makes logits of the last hidden states of a `TokenLogProbs`; base: without what an adapter does to it."""
    one = inner(module)
    form, head = one.form, bare(one.model).get_output_embeddings()
    if base:
        head = getattr(head, "base_layer", getattr(head, "original_module", head))
    bias = late_bias(bare(one.model))
    forward = head if bias is None else lambda hidden: head(hidden) + bias
    return Head(forward, form.vocabulary, form.scale, form.cap)


def check(module: TokenLogProbs, objective: Objective) -> None:
    """Raise RunError where hidden states are needed and the model does not show them."""
    if not through_states(objective):
        return
    why = "it makes its logits in its own way" if module.form.own else ""
    if not why and is_sharded(bare(module.model).get_output_embeddings()):
        why = "it is split over processes"
    if why:
        raise RunError(
            f"{objective.id} needs the model's hidden states, and they are not at hand: {why}",
            mend="use a method that needs log-probs alone, or another model",
        )
