"""Preference data of the language world: who writes the responses, and how the annotator chooses.

For each prompt two different responses are drawn, neither of them empty. With gold rewards r and lengths n (in words,
marks left out) the annotator prefers the first with probability

    sigmoid((r1 - r2) / temperature + length_bias * (n1 - n2)),

and with probability label_noise the choice is then turned over. The knobs are those of `Knobs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

import torch

from boresight.data.example import Example, Pair, Response, Score
from boresight.errors import InputError, RunError
from boresight.lab.gold import Prompt, length
from boresight.lab.language import LanguageWorld, Split, write
from boresight.lab.tiny import no_bars

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


ROUNDS = 100
"""How often `draw` asks for more prompts before it gives up."""


class Sampler(Protocol):
    """Anything that answers: for each prompt `n_samples` texts, alike for the same seed.

    It may have a `name`, which is written down as the system that wrote the responses.
    """

    def __call__(self, prompts: Sequence[Prompt], seed: int, n_samples: int) -> list[list[str]]:
        """The answers, n_samples for each prompt, in the prompts' order."""


class Writers:
    """Careless writers instead of a model: the further from the policy, the more off-policy the data."""

    def __init__(self, carelessness: float = 0.5) -> None:
        self.carelessness = carelessness
        self.name = f"writers-{carelessness:g}"

    def __call__(self, prompts: Sequence[Prompt], seed: int, n_samples: int) -> list[list[str]]:
        """Answers as in the pre-training corpus."""
        rng = Random(f"writers/{seed}")
        return [[write(p, rng, self.carelessness) for _ in range(n_samples)] for p in prompts]


class ModelSampler:
    """A `transformers` model that answers, by batched sampling with left padding.

    model: a folder, or a loaded model with its `tokenizer`. temperature: 0 is greedy. shift: logits added to words
    all along, for a policy that is the same model moved aside, e.g. {"very": 2.0}.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        temperature: float = 1.0,
        max_new_tokens: int = 24,
        batch: int = 512,
        shift: Mapping[str, float] | None = None,
        name: str | None = None,
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if temperature < 0:
            raise InputError(f"temperature is {temperature}", mend="give 0 (greedy) or a positive number")
        if isinstance(model, (str, Path)):
            name = name or Path(model).name
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(model, trust_remote_code=False)
            with no_bars():
                model = AutoModelForCausalLM.from_pretrained(model, trust_remote_code=False)
        if tokenizer is None:
            raise InputError("a loaded model was given without its tokenizer", mend="pass tokenizer=")
        self.model, self.tokenizer = model, tokenizer
        self.temperature, self.max_new_tokens, self.batch = temperature, max_new_tokens, batch
        self.shift = dict(shift or {})
        self.name = name or "model"

    def __call__(self, prompts: Sequence[Prompt], seed: int, n_samples: int) -> list[list[str]]:
        """Sampled answers; an answer that reaches `max_new_tokens` is cut there."""
        talks = [[{"role": m.role, "content": m.content} for m in p.messages] for p in prompts]
        if not prompts or n_samples == 0:
            return [[] for _ in prompts]
        heads = self.tokenizer.apply_chat_template(talks, add_generation_prompt=True, tokenize=False)
        ids = [i for i in self.tokenizer(heads, add_special_tokens=False)["input_ids"] for _ in range(n_samples)]
        # Prompts of one length together: less padding, and the order is put back below.
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        answers = [""] * len(ids)
        training = self.model.training
        self.model.eval()
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            for start in range(0, len(order), self.batch):
                places = order[start : start + self.batch]
                for place, text in zip(places, self._generate([ids[i] for i in places]), strict=True):
                    answers[place] = text
        self.model.train(training)
        return [answers[i * n_samples : (i + 1) * n_samples] for i in range(len(prompts))]

    def _generate(self, rows: list[list[int]]) -> list[str]:
        width = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=self.model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self.model.device)
        options: dict[str, Any] = {"do_sample": False}
        if self.temperature > 0:
            options = {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        if self.shift:
            options["sequence_bias"] = [[self._ids(word), float(logit)] for word, logit in self.shift.items()]
        out = self.model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=self.max_new_tokens, pad_token_id=pad, **options
        )
        return self.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)

    def _ids(self, word: str) -> list[int]:
        return self.tokenizer(word, add_special_tokens=False)["input_ids"]


def draw(
    world: LanguageWorld,
    sampler: Sampler,
    n: int,
    seed: int,
    *,
    split: Split = "train",
    gold: bool = False,
    flips: bool = False,
) -> list[Example]:
    """`n` examples, each a prompt with two different responses and one annotated pair.

    The annotator is named after the user group. gold: also give each response's gold attributes and their total
    (named `gold`) as scores. flips: also give the chosen response the score `flipped`, 1 where the label noise turned
    the pair over. Both are off unless asked for, since nobody has them in life.

    Raises RunError if the sampler keeps giving the same response twice, or empty ones.
    """
    rng = Random(f"preferences/{split}/{seed}")
    kept: list[Example] = []
    for _ in range(ROUNDS):
        if len(kept) == n:
            return kept
        # Prompts that got one response twice, or an empty one, are left out, so a few more are asked than are missing.
        asked = world.prompts(n - len(kept) + 16, rng.getrandbits(32), split)
        away = [rng.random() < world.knobs.off_policy for _ in asked]
        for prompt, (first, second), name in _answers(world, sampler, asked, away, rng.getrandbits(32)):
            if first and second and first != second and len(kept) < n:
                example = _annotate(world, prompt, (first, second), name, rng, gold=gold, flips=flips)
                kept.append(example)
    raise RunError(
        f"only {len(kept)} of {n} pairs after {ROUNDS} rounds: the sampler gives the same response twice, "
        "or empty ones",
        mend="raise its temperature",
    )


def _answers(
    world: LanguageWorld, sampler: Sampler, prompts: Sequence[Prompt], away: Sequence[bool], seed: int
) -> list[tuple[Prompt, tuple[str, str], str]]:
    """Two responses for each prompt and who wrote them: the sampler, or careless writers where `away`."""
    writers = Writers(world.knobs.carelessness)
    answered: dict[int, tuple[Prompt, tuple[str, str], str]] = {}
    for who, wanted in ((sampler, False), (writers, True)):
        places = [i for i, a in enumerate(away) if a is wanted]
        texts = who([prompts[i] for i in places], seed, 2) if places else []
        for i, (first, second) in zip(places, texts, strict=True):
            answered[i] = (prompts[i], (first, second), getattr(who, "name", "sampler"))
    return [answered[i] for i in range(len(prompts))]


def _annotate(
    world: LanguageWorld, prompt: Prompt, texts: tuple[str, str], name: str, rng: Random, *, gold: bool, flips: bool
) -> Example:
    knobs = world.knobs
    rewards = [world.reward(prompt, text) for text in texts]
    logit = (rewards[0] - rewards[1]) / knobs.temperature + knobs.length_bias * (length(texts[0]) - length(texts[1]))
    first_wins = rng.random() < _sigmoid(logit)
    flipped = rng.random() < knobs.label_noise
    chosen = 0 if first_wins != flipped else 1
    scores: list[Score] = []
    if gold:
        for i, text in enumerate(texts):
            scores.append(Score(i, rewards[i], "gold"))
            scores += [Score(i, value, attribute) for attribute, value in world.gold(prompt, text).items()]
    if flips:
        scores.append(Score(chosen, float(flipped), "flipped"))
    return Example(
        prompt=prompt.messages,
        responses=tuple(Response(text, system=name) for text in texts),
        pairs=(Pair(chosen, 1 - chosen, annotator=prompt.group or "annotator"),),
        scores=tuple(scores),
        group=prompt.group,
        domain=prompt.domain,
    )


def _sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x)) if x > -700 else 0.0
