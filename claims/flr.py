"""Follow-up likelihood: a model of dialogues whose users thank and complain ranks answers without preference labels."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from boresight.lab.claims import Arm, claim, more
from boresight.lab.tiny import byte_tokenizer, new_model, save
from boresight.rewards.followup import FollowUpReward

HELPFUL = ("clear", "exact", "kind", "full", "sound", "neat")
USELESS = ("vague", "wrong", "rude", "empty", "odd", "late")
OTHER = ("fox", "hen", "owl", "bear", "cow", "duck")
THANKS = {"all": ("thanks friend", "that helps")}
COMPLAINTS = {"all": ("no good", "bad answer")}
LOGS, HELD_OUT, ANSWER = 3000, 60, 4


def answers(rng: np.random.Generator, count: int) -> list[tuple[str, float]]:
    """Answers of four words, and how many more of them are helpful than useless."""
    words = (*HELPFUL, *USELESS, *OTHER)
    worth = np.repeat([1.0, -1.0, 0.0], len(HELPFUL))
    drawn = rng.integers(len(words), size=(count, ANSWER))
    return [(" ".join(words[k] for k in row), float(worth[row].sum())) for row in drawn]


@cache
def accuracy(seed: int, linked: bool, strength: float, steps: int) -> float:
    """Share of couples of unseen answers of which the better one has the higher reward."""
    rng = np.random.default_rng(seed)
    logs, seen = [], set()
    for text, worth in answers(rng, LOGS):
        pleased = rng.random() < (1 / (1 + np.exp(-strength * worth)) if linked else 0.5)
        said = (THANKS if pleased else COMPLAINTS)["all"]
        logs.append(["ask", text, said[int(rng.integers(2))]])
        seen.add(text)
    unseen = [one for one in answers(rng, 4 * HELD_OUT) if one[0] not in seen]
    couples = [
        (a, b) if a[1] > b[1] else (b, a) for a, b in zip(unseen[::2], unseen[1::2], strict=False) if a[1] != b[1]
    ]
    couples = couples[:HELD_OUT]
    with tempfile.TemporaryDirectory() as folder:
        model = trained(logs, steps, seed, Path(folder) / "model")
        reward = FollowUpReward(model, THANKS, COMPLAINTS, store=Path(folder) / "store")
        better, worse = ([couple[k][0] for couple in couples] for k in (0, 1))
        margin = reward.margin(["ask"] * len(couples), better, worse)
    return float(((margin > 0) + 0.5 * (margin == 0)).mean())


def trained(logs: Sequence[Sequence[str]], steps: int, seed: int, folder: Path) -> Path:
    """A small model of dialogues, from nothing, by the next-token loss on whole dialogues."""
    tokenizer = byte_tokenizer([" ".join(log) for log in logs], 400)
    model = new_model("llama", len(tokenizer), hidden=32, layers=1, heads=2, seed=seed)
    roles = ("user", "assistant", "user")
    talks = [[{"role": r, "content": t} for r, t in zip(roles, log, strict=True)] for log in logs]
    texts = tokenizer.apply_chat_template(talks, tokenize=False)
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
    width = max(map(len, rows))
    ids = torch.tensor([r + [0] * (width - len(r)) for r in rows])
    labels = torch.where(torch.arange(width) < torch.tensor([len(r) for r in rows])[:, None], ids, -100)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.98), weight_decay=0.01)
    draw = torch.Generator().manual_seed(seed)
    model.train()
    for step in range(steps):
        adam.param_groups[0]["lr"] = 1e-2 * min(1, (step + 1) / 20) * (1 - step / steps)
        some = torch.randint(len(rows), (32,), generator=draw)
        logits = model(input_ids=ids[some]).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), labels[some][:, 1:].flatten(), ignore_index=-100)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
    save(model.eval(), tokenizer, folder)
    return folder


@claim(
    "flr",
    says="A small model of dialogues whose users thank after good and complain after bad answers ranks unseen answers "
    "by the likelihood of follow-ups well above chance",
    expects=more("accuracy", by=0.2),
    treatment="logs whose follow-ups depend on the answer",
    baseline="logs whose follow-ups do not",
    sweep={"strength": (0.25, 0.5, 1.0)},
)
def followups(arm: Arm, seeds: Sequence[int], *, strength: float = 1.0, steps: int = 200) -> Mapping[str, Any]:
    """A language model of one layer (32 wide) is trained from nothing, 200 steps of 32, on the tokens of 3000
    dialogues: one question, an answer of four words out of six helpful, six useless and six other ones, and a
    follow-up, thanks or a complaint in two wordings each. Thanks come with the odds of (helpful - useless words) *
    strength. `FollowUpReward` then ranks couples of answers that were in no dialogue, by the same four follow-ups;
    the outcome is the share of at most 60 couples of different worth in which the better answer has the higher
    reward. In the baseline users thank or complain by a coin: about a half, so that the accuracy has to be .2 above.

    What decides is whether the model has learned to foresee its users. On one or two seeds: .62 after 60 steps, .65
    and .68 after 80, .75 after 120, .98 after 240; with odds half as strong .90 and .97 after 200. A first world, in
    which an answer was good where it names the colours of two things asked for, was not learned at all in 300 steps
    (.44 to .47), and was given up: this one asks only that the model sums up what words are worth.
    """
    return {"accuracy": np.array([accuracy(seed, arm == "treatment", strength, steps) for seed in seeds])}
