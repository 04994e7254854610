"""An objective in a loop of one's own: python examples/own_loop.py MODEL PREFS.jsonl

Boresight gives the rows, the log-probs and the loss; everything else is plain PyTorch.
"""

from __future__ import annotations

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from boresight.data.read import read
from boresight.data.render import Renderer
from boresight.data.rows import make_rows
from boresight.engine.dropout import disable_dropout
from boresight.engine.padded import TokenLogProbs, logprobs
from boresight.objectives import PairLogProbs, PairSide, dpo


def main(model_name: str, data: str, steps: int = 10, batch: int = 8) -> list[float]:
    """DPO against the model as it was at the start; returns the mean loss of each step."""
    tokenizer = AutoTokenizer.from_pretrained(model_name)
    policy = AutoModelForCausalLM.from_pretrained(model_name)
    reference = AutoModelForCausalLM.from_pretrained(model_name).requires_grad_(False)
    for model in (policy, reference):
        disable_dropout(model)
    engine, before = TokenLogProbs(policy), TokenLogProbs(reference)
    rows = make_rows(read(data), Renderer(tokenizer), kind="pairs")
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
    losses = []
    for step in range(steps):
        some = [rows[(step * batch + i) % len(rows)] for i in range(batch)]
        sides = [[row.sequences[side] for row in some] for side in (0, 1)]
        pairs = PairLogProbs(
            PairSide(*(logprobs(engine, side, tokenizer.pad_token_id) for side in sides)),
            PairSide(*(logprobs(before, side, tokenizer.pad_token_id) for side in sides)),
        )
        loss = dpo(pairs, beta=0.1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        print(f"step {step}: loss {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    main(*sys.argv[1:3])
