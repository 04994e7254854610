"""The summary of `score`: means with intervals, and how often the preferred response stands higher."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from math import exp, inf
from typing import Any

import numpy as np

from boresight.data.checks._base import prompt_key
from boresight.data.checks._columns import share_of
from boresight.data.example import Example
from boresight.data.views import pairs
from boresight.training.compute import Measure
from boresight.training.stats import Interval, mean

_MEANS = {
    "score": (("score", "mean over responses"),),
    "log-prob": (
        ("mean", "mean log-prob per token, nats, over responses"),
        ("logprob", "log-prob of a response, nats"),
    ),
}
_RATIOS = (("ratio", "log-prob of a response less the reference's, nats"),)
_REWARDS = (("reward", "implicit reward: beta times the log-ratio"),)
_JUDGED = {
    "score": ("score", "the preferred response scores higher; ties half"),
    "logprob": ("log-prob", "the model gives the preferred response more log-prob; ties half"),
    "mean": ("mean log-prob", "the same per token"),
    "ratio": ("log-ratio", "the implicit reward prefers the preferred response; ties half"),
    "tokens": ("longer wins", "baseline: the preferred response has more tokens; ties half"),
}
"""What pairs are judged by: name and meaning of its accuracy."""


class Summary:
    """Takes the responses of one example after another; `figures` makes what is shown of them."""

    def __init__(self, kind: str, compared: bool, beta: float | None) -> None:
        self.responses = self.tokens = self.pairs = self.odd = 0
        self._means = [*_MEANS[kind], *(_RATIOS if compared else ()), *(_REWARDS if beta is not None else ())]
        keys = ["score"] if kind == "score" else [*(["ratio"] if compared else []), "logprob", "mean"]
        self._values = {name: array("d") for name in ("tokens", "ends", *(n for n, _ in self._means))}
        self._signs = {name: array("b") for name in (*keys, "tokens")}
        self._prompts, self._of_pairs = array("q"), array("q")
        self._known: dict[int, int] = {}

    def add(self, example: Example, responses: Sequence[Mapping[str, Any]]) -> None:
        """The responses of one example, as they are written. What is left out, or not finite, counts nowhere."""
        prompt = self._known.setdefault(prompt_key(example.prompt), len(self._known))
        self.responses += len(responses)
        whole = {r["response"]: r for r in responses if "left_out" not in r}
        self.tokens += sum(r["tokens"] for r in whole.values())
        finite = {i: r for i, r in whole.items() if all(r[name] is not None for name, _ in self._means)}
        self.odd += len(whole) - len(finite)
        for found in finite.values():
            self._prompts.append(prompt)
            for name, values in self._values.items():
                values.append(found[name])
        for pair in pairs(example):
            if pair.chosen in finite and pair.rejected in finite:
                self._of_pairs.append(prompt)
                for name, signs in self._signs.items():
                    better, worse = finite[pair.chosen][name], finite[pair.rejected][name]
                    signs.append((better > worse) - (better < worse))

    def figures(self) -> tuple[list[Measure], list[str]]:
        """The figures with 95% intervals that take the responses of one prompt together, and words on the pairs."""
        of_pairs, prompts = np.asarray(self._of_pairs, np.int64), np.asarray(self._prompts, np.int64)
        made = [
            Measure(f"accuracy ({name})" if key != "tokens" else name, share_of(np.asarray(signs), of_pairs), meaning)
            for key, signs in self._signs.items()
            for name, meaning in [_JUDGED[key]]
            if len(of_pairs)
        ]
        for name, meaning in self._means:
            found = mean(np.asarray(self._values[name]), prompts)
            made.append(Measure({"mean": "mean log-prob", "logprob": "log-prob"}.get(name, name), found, meaning))
            if name == "mean":
                made.append(Measure("perplexity", _perplexity(found), "exp of minus the mean log-prob per token"))
        made.append(Measure("tokens", mean(np.asarray(self._values["tokens"]), prompts), "length of a response"))
        ends = share_of(2 * np.asarray(self._values["ends"]) - 1, prompts)
        made.append(Measure("ends", ends, "share of responses that end with an end-of-turn"))
        words = [f"{len(of_pairs)} pairs were compared."] if len(of_pairs) else []
        if self.odd:
            words.append(f"{self.odd} responses have a log-prob that is not finite: they are in no figure.")
        return made, words


def _perplexity(of: Interval) -> Interval:
    def up(x: float) -> float:
        return exp(-x) if x > -700 else inf

    return Interval(up(of.value), up(of.high), up(of.low), of.n)
