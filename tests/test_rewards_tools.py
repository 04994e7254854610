"""Tools and the reward that uses them, against exact arithmetic, scripted models and hostile input."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest

from boresight.data.example import Example, Message, Pair, Response
from boresight.errors import RunError
from boresight.rewards.base import FunctionReward
from boresight.rewards.calculator import calculate, shown
from boresight.rewards.sandbox import Limits
from boresight.rewards.tools import (
    Agreement,
    Call,
    Search,
    Step,
    ToolReward,
    by_model,
    calculator,
    check_equations,
    code_runner,
    equations,
)

LENGTH = FunctionReward(lambda prompts, responses: [len(r) for r in responses], name="length")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1 + 0.2", Fraction(3, 10)),
        ("2 + 3 * 4 - -1", 15),
        ("(2 + 3) * 4", 20),
        ("2^3^2", 512),
        ("-2 ** 2", -4),
        ("2 ** -2", Fraction(1, 4)),
        ("-7 // 2", -4),
        ("-7 % 3", 2),
        ("7.5 % 2", Fraction(3, 2)),
        ("1 / 3 * 3", 1),
        ("1,234,567 + 1", 1234568),
        ("$1,000.50 × 2 ÷ 4 − 1", Fraction(49925, 100)),
        ("1.5e3 + .5", Fraction(3001, 2)),
        ("123456789012345678901234567890 + 0.1", Fraction(1234567890123456789012345678901, 10)),
        ("+5", 5),
    ],
)
def test_arithmetic_is_exact(text, value):
    assert calculate(text) == value


def test_arithmetic_agrees_with_python_on_random_expressions():
    rng = random.Random(0)

    def grown(depth: int) -> tuple[str, Fraction]:
        if depth == 0:
            n = rng.randint(1, 99)
            return str(n), Fraction(n)
        (a, x), (b, y) = grown(rng.randrange(depth)), grown(rng.randrange(depth))
        sign = rng.choice("+-*/" if y else "+-*")
        return f"({a} {sign} {b})", {"+": x + y, "-": x - y, "*": x * y, "/": x / y if y else x}[sign]

    for _ in range(300):
        text, value = grown(5)
        if len(text) <= 500:
            assert calculate(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "1 +", "x", "__import__('os').system('true')", "(lambda: 1)()", "[1, 2]", "1 < 2", "True + 1", "1j", "0x10",
        "'a' * 3", "1_000", "9 ** 9 ** 9", "10 ** 1001", "2 ** 0.5", "1e999999999", "(" * 300, "1" + " + 1" * 200,
        "9**999 * 9**999 * 9**999", "-" * 450 + "1" * 60, "1 / 0", "0 ** -1", "5 % (3 - 3)", "a\x00b", "１ + ٣",
        "1 if 1 else 2",
    ],
)  # fmt: skip
def test_what_is_no_arithmetic_is_refused_at_once(text):
    with pytest.raises(ValueError, match=r"."):
        calculate(text)


def test_numbers_are_written_as_people_do():
    values = [Fraction(12), Fraction(-1, 8), Fraction(1, 3), Fraction(5, 2), Fraction(1, 10**12), Fraction(-201, 20)]
    assert [shown(v) for v in values] == [
        "12", "-0.125", "1/3 (about 0.333333)", "2.5", "0.000000000001", "-10.05",
    ]  # fmt: skip
    assert shown(Fraction(10**400, 3)).endswith("0/3")  # too large for a float, and yet no error
    for value in (Fraction(n, d) for n in range(-30, 31) for d in (1, 2, 4, 5, 8, 10, 16, 25, 40)):
        assert calculate(shown(value)) == value


def test_sums_are_found_in_text():
    text = "So 3 * 4 = 12, and (1 + 2) * 3 = 9. Then 1,200 / 3 = $400 (so 3 + 4 = 7). x = 5, item-2 + 3 = 6"
    assert equations(text) == [
        ("3 * 4", "12"), ("(1 + 2) * 3", "9"), ("1,200 / 3", "$400"), ("3 + 4", "7"), ("2 + 3", "6"),
    ]  # fmt: skip
    assert equations("-3 + -4 = -7; ((1+2) = 3") == [("-3 + -4", "-7"), ("(1+2)", "3")]
    assert equations("no sums, 5 = 5, 1 + = 2") == []
    assert equations("1+" * 20000 + "1") == []  # long, and no time lost
    assert equations("1" * 50000) == []


def test_agreement_is_the_share_of_right_sums():
    texts = ["1 + 1 = 2, 1 + 1 = 3", "2 / 3 = 0.67", "2 / 3 = 0.66", "2 / 3 = 1", "none", "1 / 0 = 1", "0.5 * 5 = 2.5"]
    assert Agreement()([""] * 7, texts).tolist() == pytest.approx([0.5, 1, 0, 0, np.nan, np.nan, 1], nan_ok=True)
    assert Agreement()([], []).shape == (0,)


def test_observations_stand_in_the_text_that_the_inner_reward_reads():
    seen = []
    inner = FunctionReward(lambda prompts, responses: seen.extend(responses) or [0.0] * len(responses), name="seen")
    ToolReward(inner, {"calculator": calculator})(["?"] * 2, ["2 + 2 = 5, 1 / 3 = 0", "none"])
    assert seen == [
        "2 + 2 = 5, 1 / 3 = 0\n\nThought: Is it 5?\nAction: calculator\nInput: 2 + 2\nObservation: 4\n\n"
        "Thought: Is it 0?\nAction: calculator\nInput: 1 / 3\nObservation: 1/3 (about 0.333333)",
        "none",
    ]


def test_examples_are_told_as_they_will_be_scored():
    reward = ToolReward(LENGTH, {"calculator": calculator})
    example = Example("?", (Response("1 + 1 = 3", "me"), Response((Message("assistant", "2 + 2 = 4"),))), (Pair(1, 0),))
    (found,) = reward.tell([example])
    assert found.pairs == example.pairs
    assert [r.content for r in found.responses] == [reward.told("?", r.content) for r in example.responses]
    assert found.responses[0].system == "me"
    assert reward(["?"], ["1 + 1 = 3"]).tolist() == [len(found.responses[0].content)]


def test_errors_of_tools_are_observations():
    def broken(text):
        raise KeyError("lost")

    def wants(*calls):
        return lambda prompt, response, steps: calls[len(steps)] if len(steps) < len(calls) else "enough"

    choose = wants(Call("calculator", "1 / 0"), Call("broken", "x"), Call("absent", "x"), Call("calculator", "1 + 1"))
    steps, rationale = ToolReward(LENGTH, {"calculator": calculator, "broken": broken}, choose).steps("q", "r")
    assert [s.observation.split(" (")[0] for s in steps] == [
        "error: division by zero", "error: KeyError: 'lost'",
        "error: there is no tool 'absent'; there are broken, calculator", "2",
    ]  # fmt: skip
    assert [s.failed for s in steps] == [True, True, True, False]
    assert rationale == "enough"
    assert ToolReward(LENGTH, {}, choose).steps("q", "r")[0][0].observation.endswith("there are none")


def test_steps_come_to_an_end():
    def forever(prompt, response, steps):
        return Call("calculator", str(len(steps)))

    steps, rationale = ToolReward(LENGTH, {"calculator": calculator}, forever, most=3).steps("q", "r")
    assert [s.observation for s in steps] == ["0", "1", "2"]
    assert rationale == "(no more than 3 steps)"
    exact = ToolReward(LENGTH, {"calculator": calculator}, most=2).steps("", "1 + 1 = 2, 1 + 2 = 3")
    assert (len(exact[0]), exact[1]) == (2, "")  # nothing more was wanted
    with pytest.raises(ValueError, match="most=0"):
        ToolReward(LENGTH, {}, most=0)
    with pytest.raises(RunError, match="length"):  # a failure of the inner reward is no observation
        ToolReward(FunctionReward(lambda p, r: [1.0, 2.0], name="length"), {})(["q"], ["r"])


def test_a_model_asks_for_tools_and_cannot_write_observations():
    told = []
    script = [
        "Thought: add them\nAction: calculator\nInput: 2 + 2\nObservation: 5\nRationale: it is 5",
        "Action: search\nInput: sky",
        "Rationale: It is 4 and blue.",
    ]

    def generate(text):
        told.append(text)
        return script[len(told) - 1]

    choose = by_model(generate, {"calculator": "exact arithmetic", "search": "facts"})
    reward = ToolReward(LENGTH, {"calculator": calculator, "search": Search(["The sky is blue."])}, choose)
    steps, rationale = reward.steps((Message("user", "2 + 2?"),), "4")
    assert steps == [
        Step(Call("calculator", "2 + 2", "add them"), "4"),
        Step(Call("search", "sky", ""), "The sky is blue."),
    ]
    assert rationale == "It is 4 and blue."
    assert "- calculator: exact arithmetic" in told[0]
    assert "Question: user: 2 + 2?\n\nAnswer: 4\n" in told[0]
    assert told[2].endswith(
        "Input: 2 + 2\nObservation: 4\n\nAction: search\nInput: sky\nObservation: The sky is blue.\n"
    )


def test_search_finds_the_nearest_document():
    search = Search(["Paris is the capital of France.", "Rome is the capital of Italy.", "Bread is baked."])
    assert search("capital of Italy") == "Rome is the capital of Italy."
    assert search("quarks") == "error: nothing was found"
    assert Search(["a cat", "a cat", "dog"], 2)("cat") == "a cat\na cat"
    for bad in ([], ["..."]):
        with pytest.raises(ValueError, match=r"."):
            Search(bad)


def test_code_is_run_in_the_sandbox():
    run = code_runner(Limits(cpu_s=10, wall_s=60, output_bytes=1000))
    assert run("print(6 * 7)").startswith("42")
    assert run("x = 1").startswith("(printed nothing)")
    assert run("1 / 0").startswith("error: ZeroDivisionError: division by zero")
    assert run("print('x' * 10**6)").startswith("error: stopped by the limit: output")
    assert run("import os; os.abort()").startswith("error: ended by signal 6")
    assert run("raise SystemExit(4)").startswith("error: exit status 4")


def test_rules_ask_once_for_each_sum():
    first = check_equations("", "1 + 1 = 2 and 3 + 3 = 7", ())
    assert first == Call("calculator", "1 + 1", "Is it 2?")
    assert check_equations("", "1 + 1 = 2", (Step(first, "2"),)) is None
