"""Head and loss in one pass: the loss and every gradient are those of log-probs and losses computed apart."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

import tiny
from boresight.data.tokens import Tokens
from boresight.engine import TokenLogProbs, plain_logprobs
from boresight.engine.fused import ROOM
from boresight.engine.loss import AT_ONCE, parts_of, total_loss
from boresight.objectives import LogProbs, PairLogProbs, PairSide, dpo

PAD = 0


def pairs() -> list[Tokens]:
    """Chosen, then rejected, behind the same prompts: a response of one token, a pair of equal responses."""
    random = np.random.default_rng(1)
    prompts = [random.integers(3, tiny.VOCABULARY, n) for n in (5, 1, 9)]
    chosen = [random.integers(3, tiny.VOCABULARY, n) for n in (1, 7, 4)]
    rejected = [random.integers(3, tiny.VOCABULARY, n) for n in (6, 2)] + [chosen[2]]
    made = []
    for side in (chosen, rejected):
        for prompt, response in zip(prompts, side, strict=True):
            ids = np.concatenate([prompt, response]).astype(np.int32)
            made.append(Tokens(ids, np.arange(len(ids)) >= len(prompt), True))
    return made


def loss_of_pairs(reference: torch.Tensor, values: LogProbs, numbers: list[int]) -> torch.Tensor:
    """DPO of some pairs, from log-probs of their chosen and then their rejected sides."""
    n = len(numbers)
    policy = PairSide(values.select(torch.arange(n)), values.select(torch.arange(n, 2 * n)))
    sums = policy.chosen.sum() - policy.rejected.sum()
    margins = reference[numbers]
    return -torch.nn.functional.logsigmoid(0.3 * (sums - margins)).sum()


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
@pytest.mark.parametrize("parts", [[[0, 1, 2]], [[0], [1, 2]], [[2], [0], [1]]], ids=str)
@pytest.mark.parametrize("family", ["llama-tied", "gemma3", "opt", "cohere"])
def test_loss_and_gradients_are_those_of_log_probs_and_losses_apart(family, parts, layout):
    sequences, reference = pairs(), torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)

    def run(fused: bool):
        model = tiny.tiny(family, dtype=torch.float64)
        if fused:
            module = TokenLogProbs(model, layout=layout)
            chosen_then_rejected = [[*part, *(i + 3 for i in part)] for part in parts]
            loss, values = total_loss(
                module,
                sequences,
                chosen_then_rejected,
                lambda g, values: loss_of_pairs(reference, values, parts[g]),
                PAD,
            )
        else:
            values = plain_logprobs(model, sequences, PAD)
            loss = loss_of_pairs(reference, values, [0, 1, 2])
        loss.backward()
        return loss.detach(), values, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    loss, values, gradients = run(True)
    truth, plain, expected = run(False)
    torch.testing.assert_close(loss, truth, rtol=1e-9, atol=1e-9)
    assert not values.values.requires_grad
    torch.testing.assert_close(values.values, plain.values.detach(), rtol=1e-9, atol=1e-9)
    assert gradients.keys() == expected.keys()
    whole = torch.stack([g.norm() for g in expected.values()]).norm()
    for name, gradient in expected.items():
        assert (gradients[name] - gradient).norm() <= 1e-7 * whole, name  # norms add up in fp32 in some families


@pytest.mark.parametrize("target", [["q_proj"], ["lm_head", "q_proj"]])
def test_with_adapters_on_the_head_or_elsewhere(target):
    sequences = pairs()
    found = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = tiny.lora(tiny.tiny("llama"), target_modules=target).double()
        if fused:
            loss, _ = total_loss(
                TokenLogProbs(model), sequences, [[0, 3], [1, 4, 2, 5]], lambda _, v: (v.sum() ** 2).sum(), PAD
            )
        else:
            loss = (plain_logprobs(model, sequences, PAD).sum() ** 2).sum()
        loss.backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    ours, theirs = found
    assert ours.keys() == theirs.keys()
    whole = torch.stack([g.norm() for g in theirs.values()]).norm()
    for name in theirs:
        assert (ours[name] - theirs[name]).norm() <= 1e-6 * whole, name


def test_nothing_to_predict_still_takes_part_in_the_backward_pass():
    model = tiny.tiny("llama")
    loss, values = total_loss(TokenLogProbs(model), [], [], lambda _, v: v.sum().sum(), PAD)
    loss.backward()
    assert loss.item() == 0.0
    assert values.count == 0
    assert model.model.layers[0].self_attn.q_proj.weight.grad is not None


def test_parts_hold_every_row_once_and_about_as_many_tokens_as_they_may():
    lengths = [100, 300, 150, 600, 1, 1, 511, 2]
    parts = parts_of(lengths, 100)
    assert [i for part in parts for i in part] == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in part) <= AT_ONCE or len(part) == 1 for part in parts)
    # No two neighbours would have fitted together.
    for a, b in pairwise(parts):
        assert sum(lengths[i] for i in a) + lengths[b[0]] > AT_ONCE
    assert parts_of([], 100) == []
    assert all(len(part) == 1 for part in parts_of([5, 5, 5], ROOM))


def test_dpo_by_hand_is_the_objective():
    """What the tests above call DPO is the registered one."""
    chosen, rejected = torch.tensor([-3.0, -1.0]), torch.tensor([-2.0, -5.0])
    reference = (torch.tensor([-2.5, -2.0]), torch.tensor([-2.5, -1.0]))
    batch = PairLogProbs.from_sums(chosen, rejected, *reference)
    by_hand = -torch.nn.functional.logsigmoid(0.3 * ((chosen - rejected) - (reference[0] - reference[1])))
    torch.testing.assert_close(dpo(batch, beta=0.3), by_hand)
