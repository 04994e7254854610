"""How far data lies from what a model would say itself: log-probs of its responses beside those of own samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from boresight.data.checks import Finding
from boresight.data.render import Dropped, Encoded, Renderer
from boresight.data.rows import ExampleTable
from boresight.errors import InputError
from boresight.stats import Interval, mean, proportion

if TYPE_CHECKING:
    from boresight.training.load import Loaded

FAR = 1.0
"""Nats per token from which data is far off the policy: each token is then e times less likely than the model's own."""


@dataclass(frozen=True)
class OffPolicy:
    """Measured on a sample of rows.

    responses, own: mean log-prob per token (nats) of the data's responses and of the model's own samples at
    temperature 1. gap: own less responses, paired by prompt. unlike: the share of responses whose tokens are less
    likely than those of the model's own sample on the same prompt (one half on-policy). rows: examples looked at.
    """

    responses: Interval
    own: Interval
    gap: Interval
    unlike: Interval
    rows: tuple[int, ...]
    worst: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        named = {name: getattr(self, name).to_dict() for name in ("responses", "own", "gap", "unlike")}
        return named | {"rows": len(self.rows)}


def off_policy(
    examples: ExampleTable,
    loaded: Loaded,
    renderer: Renderer,
    *,
    rows: int = 64,
    max_new_tokens: int = 128,
    seed: int = 0,
    batch_size: int = 8,
) -> OffPolicy:
    """Measure on `rows` examples, drawn with `seed`; one own sample for each, of up to `max_new_tokens` tokens.

    Log-probs count every response token, the one that ends the turn too. Raises InputError if no row can be used.
    """
    from boresight.engine.module import log_probs_module
    from boresight.engine.padded import token_values
    from boresight.training.load import turn_ends
    from boresight.training.sample import sample

    order = np.random.default_rng(seed).permutation(len(examples))[:rows]
    room = getattr(loaded.model.config, "max_position_embeddings", None)
    taken: list[int] = []
    sequences, owner, prompts = [], [], []
    for index in sorted(map(int, order)):
        example = examples[index]
        made = [
            one
            for one in renderer.group(example.prompt, list(example.responses))
            if not isinstance(one, Dropped) and not (isinstance(room, int) and len(one.tokens) > room)
        ]
        whole = [one for one in made if isinstance(one, Encoded) and one.prompt_length > 0]
        if not whole or (isinstance(room, int) and whole[0].prompt_length >= room):
            continue
        taken.append(index)
        prompts.append(whole[0].tokens.ids[: whole[0].prompt_length])
        sequences += [one.tokens for one in whole]
        owner += [len(taken) - 1] * len(whole)
    if not taken:
        raise InputError("no row can be measured under this model", mend="raise max_length, or look at the findings")
    values = token_values(log_probs_module(loaded.model), sequences, loaded.pad_id)
    drawn = sample(
        loaded.model,
        loaded.tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        seed=seed,
        batch_size=batch_size,
        eos_ids=turn_ends(loaded, renderer),
    )
    given = np.array([float(v.mean()) for v in values])
    own = np.array([s.logprob_sum / s.length for s in drawn])
    place = np.array(owner)
    gaps = own[place] - given
    by_row = np.bincount(place, gaps) / np.bincount(place)
    return OffPolicy(
        responses=mean(given, place),
        own=mean(own),
        gap=mean(gaps, place),
        unlike=proportion(float((gaps > 0).sum() + (gaps == 0).sum() / 2), len(gaps)),
        rows=tuple(taken),
        worst=tuple(taken[i] for i in np.argsort(-by_row)[:3]),
    )


def finding(measured: OffPolicy, examples: ExampleTable) -> list[Finding]:
    """A warning where the data is far off the policy, a note where it is off it at all."""
    gap = measured.gap
    if not gap.low > 0:
        return []
    return [
        Finding(
            id="off-policy",
            severity="warning" if gap.low > FAR else "note",
            title="nats per token by which the responses are less likely than the model's own samples",
            count=round(measured.unlike.value * measured.unlike.n),
            of=measured.unlike.n,
            unit="responses",
            effect="the gradient works on text the model would not write: likelihood of both sides falls, and gains in "
            "margin need not show in what it says",
            mend="train with sft on the chosen responses first, or sample pairs from this model and have them judged",
            share=gap,
            rows=np.array(measured.rows, np.int64),
            examples=[(examples[i].source or f"example {i}", "") for i in measured.worst],
            more=measured.to_dict(),
        )
    ]
