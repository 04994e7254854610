"""Quote-tuning: pairs by how much a sample quotes the corpus, without annotators, and what DPO makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boresight.curation import Quotes, quote_tuning
from boresight.data.example import Example, Response
from boresight.lab.claims import Arm, claim, more, same
from boresight.lab.drawn import Pairs
from boresight.lab.tokens import TokenPolicy, TokenWorld, fit_tokens

PROMPTS, VOCABULARY, LENGTH, SAMPLES = 20, 8, 8, 8
"""Token 0 ends a response."""


def words(codes: Tensor, world: TokenWorld) -> list[str]:
    """Responses as letters with spaces between them, up to their end."""
    tokens = world.tokens(codes)
    lengths = world.lengths(tokens)
    return [
        " ".join("abcdefgh"[t] for t in some[:length] if t)
        for some, length in zip(tokens.tolist(), lengths.tolist(), strict=True)
    ]


def measured(policy: TokenPolicy, k: int, quotes: Quotes, text: Tensor, seed: int) -> tuple[float, float, float]:
    """Share of n-grams in the corpus and mean length of fresh samples, and nats a token on held-out text."""
    world, table = policy.world, policy.logits[k].detach()
    rng = torch.Generator().manual_seed(seed + 20_000)
    prompt = torch.arange(PROMPTS)
    drawn = world.sample(table, prompt, 50, rng).flatten()
    lengths = world.lengths(world.tokens(drawn)).double()
    quip = sum(map(quotes.quip, words(drawn, world))) / len(drawn)
    tokens = world.lengths(world.tokens(text)).sum()
    nats = (
        -world.log_prob(policy.logits.detach(), prompt[None, :, None].expand(1, *text.shape), text[None]).sum() / tokens
    )
    return quip, float(lengths.mean()), float(nats)


@claim(
    "quote-tuning",
    says="DPO on pairs made by quoting raises the share of in-corpus n-grams, at unchanged length and perplexity",
    expects=(more("share quoted"), same("length", within=0.25), same("nats per token", within=0.05)),
    treatment="quote-tuned",
    baseline="the pretrained model",
    sweep={"beta": (0.05, 0.1, 0.3, 1.0), "steps": (10, 30, 100), "corpus": (5, 10, 40), "longer": (0.1, 0.3, 10.0)},
    smoke=True,
)
def quote_tuned(
    arm: Arm, seeds: Sequence[int], *, beta: float = 0.1, steps: int = 10, corpus: int = 10, longer: float = 0.1
) -> Mapping[str, Any]:
    """20 prompts, responses of at most eight tokens of a vocabulary of eight (one of which ends them). The corpus is
    `corpus` responses to each prompt, drawn from a random law; the pretrained model is that law with noise of standard
    deviation 1 on its logits, another one of each for each seed. 32 samples of it to each prompt, in four groups of 8,
    make at most four pairs by `curation.quote_tuning` (4-grams of words), as paired by the paper's limits; DPO in
    10 steps of Adam at 0.05. Outcomes: the share of 4-grams in 50 fresh samples to each prompt that the corpus has,
    their mean length in tokens, and nats a token on held-out responses of the law, 50 to each prompt.

    More steps quote more, and the rest does not stay: with 30 the share gained is three times as large, responses are
    0.2 tokens longer, and held-out text costs 0.09 nats a token more. As it trains, the model prefers what the corpus
    has to what the law has. A gain of 2 points was asked for at first, which 1.8 does not show.
    """
    found = []
    for seed in seeds:
        truth = TokenWorld.random(PROMPTS, VOCABULARY, LENGTH, seed, ends=True, reference_scale=2.0)
        rng = torch.Generator().manual_seed(seed + 10_000)
        prompt = torch.arange(PROMPTS)
        trusted, held_out = (truth.sample(truth.reference, prompt, count, rng) for count in (corpus, 50))
        noise = torch.randn(truth.reference.shape, generator=rng, dtype=torch.float64)
        world = TokenWorld(truth.reference + noise, torch.zeros(PROMPTS, LENGTH, VOCABULARY), ends=True)
        quotes = Quotes(words(trusted.flatten(), world), n=4, unit="words")
        policy = world.policy(1)
        if arm == "treatment":
            drawn = world.sample(world.reference, prompt, 4 * SAMPLES, rng)
            asked = [
                Example(str(x), tuple(Response(text) for text in words(row, world)))
                for x, codes in enumerate(drawn)
                for row in codes.view(4, SAMPLES)
            ]
            pairs = quote_tuning(asked, quotes, longer=longer)
            columns = []
            places = {(str(x), text): code for x, codes in enumerate(drawn) for code, text in
                      zip(codes.tolist(), words(codes, world), strict=True)}  # fmt: skip
            for one in pairs:
                sides = [
                    places[one.prompt, one.responses[i].text] for i in (one.pairs[0].chosen, one.pairs[0].rejected)
                ]
                columns.append([int(one.prompt), *sides])
            made = Pairs.of(*torch.tensor(columns).T, seeds=[seed])
            policy = fit_tokens(world, "dpo", pairs=made, hyperparameters={"beta": beta}, steps=steps)
        found.append(measured(policy, 0, quotes, held_out, seed))
    return dict(zip(("share quoted", "length", "nats per token"), torch.tensor(found).T, strict=True))
