"""`check` in full: what the data itself shows, and with a model what only the model can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any

from boresight.data.check import CheckResult
from boresight.data.check import check as look
from boresight.data.rows import ExampleTable
from boresight.errors import InputError


def check(
    data: str | PathLike[str] | ExampleTable,
    model: str | None = None,
    *,
    against: str | PathLike[str] | ExampleTable | None = None,
    method: str | None = None,
    off_policy: int = 0,
    show: int = 0,
    template: str = "auto",
    spans: str | Iterable[int] = "last",
    max_length: int | None = None,
    truncation: str = "drop",
    format: str | None = None,
    strict: bool = False,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> CheckResult:
    """Find what will go wrong with this data, and show what would be trained on.

    data: a path or hub name (see `read`), or examples. model: a folder or hub name whose tokenizer and template make
    the tokens; without one only the data itself is looked at. against: another split, whose prompts should not be in
    this one. method: an objective to estimate time and memory for; needs the model. off_policy: so many examples are
    compared with samples of the model's own; needs its weights. show: so many rows are given in pieces and painted.
    seed: of samples. progress: called with (examples done, all examples). The rest: see `Renderer` and `read`.

    Raises InputError for data or a model that cannot be used.
    """
    if model is None and (method is not None or off_policy):
        asked = "method" if method is not None else "off_policy"
        raise InputError(f"{asked} needs a model", mend="give model=..., a folder or a hub name")
    objective = None
    if method is not None:
        from boresight.training.method import find_objective

        objective = find_objective(method)
    rendering: dict[str, Any] = {
        "template": template,
        "spans": spans,
        "max_length": max_length,
        "truncation": truncation,
    }
    result = look(
        data,
        model,
        against=against,
        show=show,
        format=format,
        strict=strict,
        limit=limit,
        seed=seed,
        progress=progress,
        **rendering,
    )
    if objective is not None and model is not None and result.rows is not None:
        from boresight.training.cost import cost, lines

        result.facts["cost"] = cost(objective, model, result.rows)
        result.more_lines += lines(result.facts["cost"])
    if off_policy and model is not None:
        from boresight.data.render import Renderer
        from boresight.engine.headform import is_encoder_decoder
        from boresight.training.load import load
        from boresight.training.offpolicy import finding
        from boresight.training.offpolicy import off_policy as measure

        loaded = load(model)
        renderer = Renderer(loaded.tokenizer, encoder_decoder=is_encoder_decoder(loaded.model), **rendering)
        measured = measure(result.examples, loaded, renderer, rows=off_policy, seed=seed)
        result.facts["off_policy"] = measured.to_dict()
        result.more_lines.append(
            f"off-policyness, {len(measured.rows)} examples: {measured.responses.value:.2f} nats a token for the "
            f"responses, {measured.own.value:.2f} for the model's own"
        )
        result.add(finding(measured, result.examples))
    return result
