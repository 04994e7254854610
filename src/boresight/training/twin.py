"""The slow twin of a policy: a second adapter beside its own, trained at the same time at a share of its rate."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from boresight.data.tokens import Tokens
from boresight.engine.adapters import active_adapters, adapter_on
from boresight.engine.fingerprint import adapter_tensors
from boresight.engine.padded import logprobs
from boresight.errors import InputError
from boresight.objectives import LogProbs, Objective
from boresight.training.recipe import Recipe

NAME = "slow"
"""Of the twin's adapter in the model, and of its folder in a checkpoint, beside the policy's own adapter."""


class Twin:
    """The adapter `slow` of a model. `factor` is its share of the learning rate."""

    def __init__(self, model: Any, module: nn.Module, accelerator: Any, pad_id: int, factor: float) -> None:
        self.model, self.module, self.accelerator, self.pad_id, self.factor = model, module, accelerator, pad_id, factor
        self.parameters = [p for p in adapter_tensors(model, NAME).values() if isinstance(p, nn.Parameter)]

    def log_probs(self, tokens: Sequence[Tokens]) -> LogProbs:
        """Log-probs of the sequences' responses under the slow adapter alone; gradients reach it and nothing else."""
        with adapter_on(self.model, NAME), self.accelerator.autocast():
            for parameter in self.parameters:
                parameter.requires_grad_()
            return logprobs(self.module, tokens, self.pad_id, self.accelerator.device)

    def group(self) -> dict[str, Any]:
        """What the optimizer trains, at a rate of its own."""
        return {"params": self.parameters, "factor": self.factor}


def check(recipe: Recipe, objective: Objective, *, divided: bool) -> None:
    """Raise InputError where an objective needs a twin and the run cannot have one."""
    if "twin" not in objective.needs:
        return
    if recipe.adapter != "lora":
        raise InputError(f"{recipe.method} trains two adapters beside each other", mend="say adapter=lora")
    if divided or recipe.gradient_checkpointing:
        # Recomputed activations, and parts gathered from other processes, would be those of the other adapter.
        what = "a model split over processes" if divided else "gradient_checkpointing"
        raise InputError(f"{recipe.method} switches between two adapters, which {what} cannot", mend="leave it off")


def beside(
    objective: Objective,
    hyperparameters: dict[str, Any],
    model: Any,
    module: nn.Module,
    accelerator: Any,
    pad_id: int,
    checkpoint: Path | None,
) -> Twin | None:
    """The twin of this policy where the objective needs one: a copy of its adapter, or that of the checkpoint."""
    if "twin" not in objective.needs:
        return None
    own = active_adapters(model)[0]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    if checkpoint is not None:
        model.load_adapter(str(checkpoint / NAME), adapter_name=NAME, is_trainable=True)
    else:
        model.add_adapter(NAME, deepcopy(model.peft_config[own]))
        pairs = zip(adapter_tensors(model, own).items(), adapter_tensors(model, NAME).items(), strict=True)
        with torch.no_grad():
            for (_, source), (_, copied) in pairs:
                copied.copy_(source)
    for parameter, flag in flags:
        parameter.requires_grad_(flag)
    twin = Twin(model, module, accelerator, pad_id, float(hyperparameters["slow"]))
    head = model.get_output_embeddings()
    inside = {id(p) for p in head.parameters()} if head is not None else set()
    if any(id(p) in inside for p in twin.parameters):
        raise InputError("the adapter lies on the output layer too", mend="name lora_targets without the head")
    for parameter in twin.parameters:
        parameter.requires_grad_()
    return twin
