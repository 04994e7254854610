"""Prefix sharing (Wang and Hegde 2024): a prompt laid once before both responses changes nothing but the cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from boresight.data.tokens import Tokens
from boresight.engine import TokenLogProbs, logprobs, plain_logprobs
from boresight.engine.layout import Group, PackedBatch, pack
from boresight.engine.loss import total_loss
from boresight.lab.claims import Arm, claim, identity, less, more
from boresight.objectives import LogProbs, PairLogProbs, PairSide, dpo

VOCABULARY, PAD, PAIRS = 97, 0, 6
SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
}  # fmt: skip
FAMILIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("LlamaConfig", SHAPE),
    ("Qwen2Config", SHAPE),
    ("Qwen3Config", SHAPE | {"head_dim": 8}),
    ("MistralConfig", SHAPE | {"sliding_window": 6}),
    ("Gemma2Config", SHAPE | {"head_dim": 8, "sliding_window": 6, "attn_logit_softcapping": 5.0}),
    ("MixtralConfig", SHAPE | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    ("PhiConfig", SHAPE),
    ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.2}),
)
"""One for each seed: rotary and learned positions, grouped queries, sliding windows, capped scores, experts."""


def model(seed: int, weights: int) -> Any:
    """A model of the seed's family with random weights, fp32, without dropout."""
    name, settings = FAMILIES[seed % len(FAMILIES)]
    config = getattr(transformers, name)(
        **settings, vocab_size=VOCABULARY, pad_token_id=PAD, bos_token_id=1, eos_token_id=2
    )
    torch.manual_seed(weights)
    return transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False).eval()


def pairs(seed: int, ratio: float, response: int, count: int = PAIRS) -> list[Tokens]:
    """Chosen and rejected sequences by turns; prompts are about `ratio` times as long as responses, which vary."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        lengths = rng.integers(max(2, response // 2), response + response // 2 + 1, 2)
        prompt = rng.integers(3, VOCABULARY, max(1, round(ratio * response * rng.uniform(0.5, 1.5))))
        for length in lengths:
            ids = np.concatenate([prompt, rng.integers(3, VOCABULARY, length)]).astype(np.int32)
            made.append(Tokens(ids, np.arange(ids.size) >= prompt.size, True))
    return made


def losses(policy: LogProbs, reference: LogProbs) -> Tensor:
    """DPO's loss of each pair, of log-probs of chosen and rejected by turns."""
    sides = [
        LogProbs.from_sums(values[k::2], torch.ones(PAIRS, dtype=torch.int64))
        for values in (policy.sum(), reference.sum())
        for k in (0, 1)
    ]
    return dpo(PairLogProbs(PairSide(*sides[:2]), PairSide(*sides[2:])), beta=0.1)


def gradient(of: Any, loss: Tensor) -> Tensor:
    """The gradient of all parameters, one behind the other."""
    parameters = [p for p in of.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [torch.zeros(p.numel()) if g is None else g.flatten() for g, p in zip(found, parameters, strict=True)]
    )


def apart(ours: Tensor, truth: Tensor) -> float:
    """The largest difference, relative to the largest value where that is above 1."""
    return float(((ours - truth).abs().max() / truth.abs().max().clamp(min=1.0)).detach())


def seen(batch: PackedBatch) -> PackedBatch:
    """The batch with one branch made of both, so that rejected tokens see the chosen response."""
    return replace(batch, groups=tuple(Group(g.start, g.common, (sum(g.branches),)) for g in batch.groups))


def moved(batch: PackedBatch) -> PackedBatch:
    """The batch with positions that run on behind the chosen response in place of beginning again."""
    positions = batch.position_ids.clone()
    for start, common, branches in batch.groups:
        positions[0, start : start + common + sum(branches)] = torch.arange(common + sum(branches))
    return replace(batch, position_ids=positions)


@identity(
    "dpo-prefix-sharing",
    part="exact",
    says="With the prompt shared, log-probs, DPO loss and gradients are those of separate sequences, to 1e-5",
    tolerance=1e-5,
    altered="rejected tokens that see the chosen ones, or positions that run on (the smaller residual of the two)",
    smoke=True,
)
def prefix_sharing_exact(seeds: Sequence[int], *, altered: bool) -> list[float]:
    """Random transformers of 2 layers in fp32, another family for each seed (Llama, Qwen2, Qwen3, Mistral and Gemma 2
    with sliding windows shorter than the texts, Mixtral, Phi, GPT-2), and 6 pairs of random tokens, prompts of about
    20 and responses of about 10. Shared: one row without padding, as the engine lays it for training. Separate: every
    sequence on its own in a padded batch, full logits, log-softmax. The residual is the largest of three, each
    relative to the largest value where that is above 1: of the tokens' log-probs, of the loss summed over pairs, and of
    the gradient of all parameters, which is taken relative to its own largest entry.

    It stops holding where a model cannot be laid so (biases in the scores, state-space layers): the engine finds
    that out by trying, pads instead, and says so; such families are not among those here.
    """
    found = []
    for seed in seeds:
        shared, plain = (model(seed, weights=seed) for _ in range(2))
        sequences = pairs(seed, ratio=2.0, response=10)
        module = TokenLogProbs(shared)
        if module.layout != "shared":
            raise RuntimeError(f"{type(shared).__name__} is not laid out with shared prompts")
        truth = plain_logprobs(plain, sequences, PAD)
        if altered:
            batch = pack(sequences)
            with torch.no_grad():
                wrong = [module(**change(batch).inputs()) for change in (seen, moved)]
            found.append(min(apart(w, truth.values) for w in wrong))
            continue
        with torch.no_grad():
            reference = plain_logprobs(model(seed, weights=seed + 1), sequences, PAD)
        ours = logprobs(module, sequences, PAD)
        total, _ = total_loss(
            module, sequences, [range(len(sequences))], lambda _, v, r=reference: losses(v, r).sum(), PAD
        )
        expected = losses(truth, reference).sum()
        slopes, truths = gradient(shared, total), gradient(plain, expected)
        scale = truths.abs().max()
        residuals = (apart(ours.values, truth.values), apart(total, expected), apart(slopes / scale, truths / scale))
        found.append(max(residuals))
    return found


def laid(seeds: Sequence[int], ratio: float, *, share: bool) -> list[float]:
    """Tokens that go through the model for each of 64 pairs."""
    sequences = [pairs(seed, ratio, response=40, count=64) for seed in seeds]
    return [pack(s, share=share).input_ids.numel() / 64 for s in sequences]


@claim(
    "dpo-prefix-sharing",
    part="tokens",
    says="Fewer tokens go through the model with the prompt shared",
    expects=less("tokens a pair"),
    treatment="prompts shared",
    baseline="the same row without sharing",
    sweep={"ratio": (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)},
    smoke=True,
)
def prefix_sharing_tokens(arm: Arm, seeds: Sequence[int], *, ratio: float = 1.0) -> Mapping[str, Any]:
    """64 pairs with responses of 20 to 60 tokens, and prompts that are `ratio` times as long on average. Both arms are
    the engine's own layout in one row; neither is padded, so that no saving is owed to padding.
    """
    return {"tokens a pair": laid(seeds, ratio, share=arm == "treatment")}


@claim(
    "dpo-prefix-sharing",
    part="growth",
    says="The share of tokens saved grows with the ratio of prompt to response",
    expects=more("share saved"),
    treatment="twice the ratio",
    baseline="the ratio",
    sweep={"ratio": (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)},
    smoke=True,
)
def prefix_sharing_growth(arm: Arm, seeds: Sequence[int], *, ratio: float = 1.0) -> Mapping[str, Any]:
    """The texts of `dpo-prefix-sharing/tokens`; the outcome is 1 - tokens shared / tokens not shared, at twice the
    ratio of prompt to response against the ratio itself. With prompts of p and responses of r tokens it is about
    p / (2p + 2r), which grows towards a half, so that what a longer prompt adds becomes small.
    """
    ratio = 2 * ratio if arm == "treatment" else ratio
    shared, apart_ = laid(seeds, ratio, share=True), laid(seeds, ratio, share=False)
    return {"share saved": [1 - s / a for s, a in zip(shared, apart_, strict=True)]}
