"""The follow-up reward against the plain way in float64: one conversation, one forward pass, one mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from boresight.data.example import Message
from boresight.errors import InputError
from boresight.rewards.followup import NEGATIVE, POSITIVE, FollowUpReward
from words import WORDS

GOOD = {"one": ["thanks a lot", "fine"], "two": ["right"]}
BAD = {"one": ["no"], "two": ["that is wrong", "you are off", "bad"]}
ASKED = [("how are you", "well"), ("why", " ".join(WORDS[:9]))]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from boresight.lab.tiny import make_model

    texts = [" ".join(WORDS), *GOOD["one"], *BAD["two"]] * 8
    return make_model(texts, tmp_path_factory.mktemp("followup") / "m", vocab=300, hidden=32, layers=2, heads=2, seed=1)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def plain(folder, prompt: str, response: str, text: str) -> float:
    """Mean log-likelihood of the follow-up's tokens, by the template written out."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).double().eval()
    before = f"<|begin|><|start|>user\n{prompt}<|end|>\n<|start|>assistant\n{response}<|end|>\n<|start|>user\n"
    first, rest = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (before, text))
    with torch.no_grad():
        logps = model(torch.tensor([first + rest])).logits[0].log_softmax(-1)
    return float(np.mean([logps[len(first) + k - 1, token] for k, token in enumerate(rest)]))


def test_it_is_the_mean_over_aspects_of_likelihoods_of_tokens(model, store):
    reward = FollowUpReward(model, GOOD, BAD, store=store)
    own = [
        np.mean(
            [
                np.mean([plain(model, p, r, f) for f in GOOD[a]]) - np.mean([plain(model, p, r, f) for f in BAD[a]])
                for a in GOOD
            ]
        )
        for p, r in ASKED
    ]
    assert reward(*zip(*ASKED, strict=True)) == pytest.approx(own, abs=1e-5)
    talk = [((Message("user", p),), (Message("assistant", r),)) for p, r in ASKED]
    assert reward(*zip(*talk, strict=True)) == pytest.approx(own, abs=1e-5)
    turned = FollowUpReward(model, BAD, GOOD, store=store)
    assert turned(*zip(*ASKED, strict=True)) == pytest.approx([-v for v in own], abs=1e-5)


def test_what_is_said_on_both_sides_counts_for_nothing(model, store):
    same = FollowUpReward(model, {"a": ["fine"]}, {"a": ["fine"]}, store=store)
    assert same(*zip(*ASKED, strict=True)).tolist() == [0.0, 0.0]
    assert same([], []).shape == (0,)


def test_what_cannot_be_scored_is_nan(model, store):
    reward = FollowUpReward(model, {"a": ["fine"]}, {"a": ["no"]}, max_length=60, store=store)
    values = reward(["q"] * 3, ["a", " ", "word " * 60])
    assert [math.isnan(v) for v in values] == [False, True, True]


def test_follow_ups_have_the_same_aspects_and_words(model, tmp_path):
    assert list(POSITIVE) == list(NEGATIVE)
    for positive, negative, said in (
        ({}, {}, "same aspects"),
        ({"a": ["x"]}, {"b": ["y"]}, "same aspects"),
        ({"a": []}, {"a": ["y"]}, "no follow-ups"),
        ({"a": ["x"]}, {"a": [" "]}, "no follow-ups"),
        ({"a": "x"}, {"a": ["y"]}, "no follow-ups"),
    ):
        with pytest.raises(InputError) as raised:
            FollowUpReward(model, positive, negative)
        assert said in f"{raised.value} {raised.value.mend}"
    AutoModelForSequenceClassification.from_pretrained(model, num_labels=1).save_pretrained(tmp_path / "reward")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.save_pretrained(tmp_path / "reward")
    with pytest.raises(InputError, match="is a reward model"):
        FollowUpReward(tmp_path / "reward")
    tokenizer.chat_template = None
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(tmp_path / "bare")
    tokenizer.save_pretrained(tmp_path / "bare")
    with pytest.raises(InputError, match="no chat template"):
        FollowUpReward(tmp_path / "bare")
