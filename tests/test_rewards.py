"""Rewards on their one interface: closed forms of combinations, and models against the plain way in float64."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from boresight.data.example import Example, Message, Pair, Response
from boresight.data.views import pairs
from boresight.errors import InputError, RunError
from boresight.rewards import (
    Constrained,
    Ensemble,
    FunctionReward,
    ImplicitReward,
    LogSigmoid,
    Minimum,
    ModelReward,
    Reward,
    Sum,
    label,
    load_reward,
    scored,
)
from boresight.rewards.combine import quantiles
from words import WORDS


class Table(Reward):
    """Scores that stand in a table, by response."""

    def __init__(self, table: dict[str, object], names: tuple[str, ...] = ()) -> None:
        self.table, self.names = table, names

    def score(self, prompts, responses):
        return np.array([self.table[r] for r in responses], np.float64)


def numbers(*rewards: Reward) -> list[float]:
    """What each gives the response "y"."""
    return [float(r.score(["x"], ["y"])[0]) for r in rewards]


def of(*values: float) -> list[Reward]:
    return [Table({"y": v}) for v in values]


# ---- combinations

FINITE = st.floats(-50, 50)


@given(st.lists(FINITE, min_size=1, max_size=5), st.data())
@settings(max_examples=100)
def test_combinations_are_what_their_names_say(values, data):
    weights = data.draw(st.lists(FINITE, min_size=len(values), max_size=len(values)))
    centre = data.draw(st.lists(FINITE, min_size=len(values), max_size=len(values)))
    found = numbers(Sum(of(*values)), Sum(of(*values), weights), Minimum(of(*values)), LogSigmoid(of(*values), centre))
    logs = [-(math.log1p(math.exp(c - v)) if c - v < 30 else c - v) for v, c in zip(values, centre, strict=True)]
    expected = [sum(values), sum(v * w for v, w in zip(values, weights, strict=True)), min(values), sum(logs)]
    assert found == pytest.approx(expected, abs=1e-9)
    cautious = Ensemble(of(*values), caution=2)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    assert numbers(cautious, Ensemble(of(*values), caution=math.inf)) == pytest.approx(
        [statistics.fmean(values) - 2 * spread, min(values)], abs=1e-9
    )
    assert cautious.uncertainty(["x"], ["y"])[0] == pytest.approx(spread, abs=1e-9)


def test_the_log_sigmoid_is_the_log_probability_of_beating_each_reference():
    # Bradley-Terry: 3 to 1 and even; both at once 3/4 * 1/2.
    assert numbers(LogSigmoid(of(math.log(3) + 1, -2.0), (1.0, -2.0))) == pytest.approx([math.log(3 / 8)])
    assert numbers(LogSigmoid(of(1e4)), LogSigmoid(of(-1e4))) == [0.0, -1e4]
    by_prompt = LogSigmoid([Table({"y": 2.0})], lambda prompts: np.array([[len(p)] for p in prompts]))
    assert by_prompt.score(["ab", "abc"], ["y", "y"]) == pytest.approx([math.log(0.5), -math.log1p(math.e)])


def test_gains_count_less_where_a_response_is_good_already():
    low, high = (numbers(LogSigmoid(of(v)))[0] for v in (-3.0, 3.0))
    lower, higher = (numbers(LogSigmoid(of(v + 1)))[0] for v in (-3.0, 3.0))
    assert lower - low > 10 * (higher - high) > 0


def test_quantiles_of_samples_are_taken_by_prompt_and_attribute():
    samples = np.arange(24.0).reshape(2, 4, 3)
    assert quantiles(samples, 1).tolist() == samples.max(1).tolist()
    assert quantiles(samples[..., 0], 0.5).tolist() == [4.5, 16.5]
    with pytest.raises(ValueError, match="share"):
        quantiles(samples, 1.1)


def test_a_constraint_costs_what_is_missing():
    constrained = Constrained(Table({"a": 5.0, "b": 5.0}), Table({"a": 1.0, "b": -1.0}), least=0.0, penalty=3)
    assert constrained.score(["x"] * 2, ["a", "b"]).tolist() == [5.0, 2.0]
    hard = Constrained(Table({"a": 5.0, "b": 9.0}), Table({"a": 0.0, "b": -1e-9}), least=0.0)
    assert hard.score(["x"] * 2, ["a", "b"]).tolist() == [5.0, -math.inf]


def test_attributes_of_all_parts_are_combined_and_weights_must_fit():
    two = Table({"y": [1.0, 10.0]}, names=("help", "harm"))
    assert numbers(Sum([two, *of(100.0)], [1, -1, 0.5])) == [41.0]
    assert numbers(two + of(5.0)[0]) == [16.0]
    with pytest.raises(ValueError, match="2 weights for 3 attributes"):
        Sum([two, *of(1.0)], [1, 1]).score(["x"], ["y"])
    with pytest.raises(ValueError, match="at least one"):
        Sum([])
    for wrong in (lambda: Ensemble(of(1.0), caution=-1), lambda: Constrained(*of(1.0, 1.0), 0, penalty=math.nan)):
        with pytest.raises(ValueError, match="0 or more"):
            wrong()


def test_a_margin_is_the_difference_of_scores():
    two = Table({"a": [1.0, 10.0], "b": [3.0, 2.0]}, names=("help", "harm"))
    assert two.margin(["x"], ["a"], ["b"]).tolist() == [6.0]
    one = Table({"a": 1.5, "b": -1.0})
    assert one.margin(["x", "x"], ["a", "b"], ["b", "a"]).tolist() == [2.5, -2.5]


# ---- functions


def test_functions_see_plain_texts_and_conversations():
    def words(prompts, responses):
        assert prompts == ["q", [{"role": "user", "content": "hi"}]]
        return torch.tensor([float(len(r.split())) for r in responses])

    reward = FunctionReward(words)
    assert reward.score(["q", (Message("user", "hi"),)], ["a b", "c"]).tolist() == [2.0, 1.0]
    assert FunctionReward(words, names=("a", "b")).score([], []).shape == (0, 2)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda p, r: [1.0], r"numbers of shape \(1,\), for 2 responses"),
        (lambda p, r: [[1.0], [2.0]], r"shape \(2, 1\)"),
        (lambda p, r: 1 / 0, "ZeroDivisionError"),
        (lambda p, r: ["a", "b"], "ValueError"),
    ],
)
def test_functions_that_fail_are_named(function, said):
    with pytest.raises(RunError, match=said):
        FunctionReward(function, name="mine.f").score(["x"] * 2, ["a", "b"])


# ---- examples

EXAMPLES = [
    Example("p", (Response("bad"), Response("good")), pairs=(Pair(0, 1),)),
    Example("q", ()),
    Example("r", (Response("good", prompt="other"), Response("none"), Response("bad"))),
]
TABLE = Table({"good": 1.0, "bad": -1.0, "none": math.nan})


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_scores_come_back_example_by_example(at_once):
    moved: list[int] = []
    found = list(scored(TABLE, EXAMPLES, at_once=at_once, progress=moved.append))
    assert [e for e, _ in found] == EXAMPLES
    assert [v.tolist()[:1] for _, v in found] == [[-1.0], [], [1.0]]
    assert sum(moved) == 3
    seen: list[object] = []
    list(scored(FunctionReward(lambda p, r: [seen.append(x) or 0.0 for x in p]), EXAMPLES))
    assert seen == ["p", "p", "other", "r", "r"]


def test_labelled_data_prefers_what_the_reward_prefers():
    made = list(label(TABLE, EXAMPLES))
    assert [(p.chosen, p.rejected) for p in pairs(made[0])] == [(1, 0)]  # the human's verdict was the other way
    assert [(s.response, s.value) for s in made[2].scores] == [(0, 1.0), (2, -1.0)]  # no score where there is none
    kept = next(iter(label(TABLE, EXAMPLES, keep=True)))
    assert kept.pairs == EXAMPLES[0].pairs
    assert [s.annotator for s in kept.scores] == ["reward"] * 2
    named = next(iter(label(Table({"bad": [0, 1], "good": [2, 3]}, ("u", "v")), EXAMPLES[:1])))
    assert [(s.response, s.name, s.value) for s in named.scores] == [(0, "u", 0), (0, "v", 1), (1, "u", 2), (1, "v", 3)]


# ---- models


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    from boresight.lab.tiny import make_model

    folder = tmp_path_factory.mktemp("rewards")
    base, other = (
        make_model([" ".join(WORDS)] * 8, folder / str(k), vocab=300, hidden=32, layers=2, heads=2, seed=k)
        for k in (0, 1)
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=1).save_pretrained(folder / "reward")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "reward")
    return {"base": base, "other": other, "reward": folder / "reward", "store": folder / "store"}


def text(count: int) -> str:
    return " ".join((WORDS * 20)[3 : 3 + count])


ASKED = [(text(3), text(9)), (text(4), text(2)), (text(5), WORDS[0])]
PROMPTS, RESPONSES = [p for p, _ in ASKED], [r for _, r in ASKED]


def rendered(tokenizer, prompt: str, response: str) -> tuple[list[int], int]:
    """Ids of the whole conversation, and how many of them come before the response."""
    before = [{"role": "user", "content": prompt}]
    ids = tokenizer.apply_chat_template(
        [*before, {"role": "assistant", "content": response}], tokenize=True, return_dict=False
    )
    start = tokenizer.apply_chat_template(before, add_generation_prompt=True, tokenize=True, return_dict=False)
    return list(ids), len(start)


def plain(model, tokenizer, prompt: str, response: str) -> float:
    """log p(response | prompt), one text at a time, in float64."""
    ids, start = rendered(tokenizer, prompt, response)
    with torch.no_grad():
        logps = model.double().eval()(torch.tensor([ids])).logits[0].log_softmax(-1)
    return float(sum(logps[t - 1, ids[t]] for t in range(start, len(ids))))


def test_a_reward_model_gives_its_own_scores(models):
    reward = load_reward(models["reward"], store=models["store"])
    assert isinstance(reward, ModelReward)
    tokenizer = AutoTokenizer.from_pretrained(models["reward"])
    model = AutoModelForSequenceClassification.from_pretrained(models["reward"]).double().eval()
    with torch.no_grad():
        own = [float(model(torch.tensor([rendered(tokenizer, p, r)[0]])).logits[0, 0]) for p, r in ASKED]
    assert reward(PROMPTS, RESPONSES) == pytest.approx(own, abs=1e-4)
    assert reward([], []).shape == (0,)


@pytest.mark.parametrize("mean", [False, True])
def test_the_implicit_reward_is_the_log_ratio(models, mean):
    reward = ImplicitReward(models["base"], models["other"], beta=0.3, mean=mean, store=models["store"])
    tokenizer = AutoTokenizer.from_pretrained(models["base"])
    one, other = (AutoModelForCausalLM.from_pretrained(models[k]) for k in ("base", "other"))
    own = []
    for p, r in ASKED:
        ids, start = rendered(tokenizer, p, r)
        ratio = plain(one, tokenizer, p, r) - plain(other, tokenizer, p, r)
        own.append(0.3 * ratio / (len(ids) - start if mean else 1))
    assert reward(PROMPTS, RESPONSES) == pytest.approx(own, abs=1e-3)
    turned = ImplicitReward(models["other"], models["base"], beta=0.3, mean=mean, store=models["store"])
    assert turned(PROMPTS, RESPONSES) == pytest.approx([-v for v in own], abs=1e-3)
    same = ImplicitReward(models["base"], models["base"], store=models["store"])
    assert same(PROMPTS, RESPONSES).tolist() == [0.0] * 3


def test_an_instruction_stands_before_every_prompt(models):
    told = ImplicitReward(models["base"], models["other"], instruction=text(7), store=models["store"])
    bare = ImplicitReward(models["base"], models["other"], store=models["store"])
    longer = [f"{text(7)}\n\n{p}" for p in PROMPTS]
    assert told(PROMPTS, RESPONSES).tolist() == bare(longer, RESPONSES).tolist()
    talk = [(Message("system", "s"), Message("user", p)) for p in PROMPTS]
    there = [(Message("system", "s"), Message("user", p)) for p in longer]
    assert told(talk, RESPONSES).tolist() == bare(there, RESPONSES).tolist()


def test_what_gives_no_tokens_or_too_many_has_no_score(models):
    reward = ModelReward(models["reward"], max_length=30, store=models["store"])
    values = reward.score([text(3)] * 3, [text(2), "", text(200)])
    assert np.isnan(values).tolist() == [False, True, True]


def test_names_that_are_no_reward(models, tmp_path, monkeypatch):
    (tmp_path / "my_rewards_here.py").write_text(
        "def short(prompts, responses):\n    return [-len(r) for r in responses]\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    assert load_reward("my_rewards_here.short")(["x", "x"], ["a", "bcd"]).tolist() == [-1.0, -3.0]
    for name, options, said in (
        ("my_rewards_here.number", {}, "is a int"),
        ("my_rewards_here.absent", {}, "does not resolve"),
        ("my_rewards_here.short", {"reference": "x"}, "reference means nothing"),
        ("my_rewards_here.short", {"beta": 1.0}, "beta means nothing"),
        (models["base"], {}, "needs a reference"),
        (models["reward"], {"reference": models["base"]}, "reference means nothing"),
        (tmp_path / "nowhere", {}, "nowhere"),
    ):
        with pytest.raises(InputError, match=said):
            load_reward(name, **options)
    with pytest.raises(InputError, match="beta=0 is no factor"):
        ImplicitReward(models["base"], models["other"], beta=0)
    with pytest.raises(InputError, match="is a language model"):
        ModelReward(models["base"])
    with pytest.raises(InputError, match="is a reward model"):
        ImplicitReward(models["reward"], models["base"])
