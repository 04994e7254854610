"""Code that is scored by running it, and pairs of code: against code whose verdict is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from boresight.data.example import Example, Message, Pair, Response
from boresight.rewards.code import (
    CRITERIA,
    CodeReward,
    CodeTests,
    Revision,
    as_choice,
    code_of,
    commit_pairs,
    critique_pairs,
    run_tests,
)
from boresight.rewards.sandbox import Limits, Outcome

LIMITS = Limits(cpu_s=10, wall_s=60)
ADD = CodeTests(("assert add(1, 2) == 3", "assert add(-1, 1) == 0", "assert add('a', 'b') == 'ab'"))


def passed(code, tests):
    return [ok for ok, _ in run_tests(code, tests, LIMITS)]


def test_the_share_of_tests_passed():
    reward = CodeReward({"add": ADD}, limits=LIMITS)
    texts = [
        "def add(a, b): return a + b",
        "Here it is:\n```python\ndef add(a, b):\n    return int(a) + int(b)\n```\nIt fails for texts.",
        "def add(a, b): return 7",
        "def add(a, b) return",
    ]
    assert reward(["add"] * 4, texts).tolist() == pytest.approx([1, 2 / 3, 0, 0])
    assert math.isnan(reward(["unknown"], texts[:1])[0])
    assert reward([], []).shape == (0,)
    asked = (Message("system", "be brief"), Message("user", "add"))
    assert reward([asked], [(Message("assistant", texts[0]),)]).tolist() == [1]
    assert np.isnan(CodeReward(lambda prompt: None)(["add"], texts[:1])).all()


def test_leaving_early_is_not_passing():
    one = CodeTests(("assert f() == 1",))
    assert passed("import os\ndef f(): os._exit(0)", one) == [False]
    assert passed("def f(): raise SystemExit(0)", one) == [False]
    assert passed("raise SystemExit", one) == [False]
    assert passed("def f():\n    while True: print('x' * 1000)", one) == [False]
    (ok, outcome), = run_tests("def f(): print('said'); return 1", one, LIMITS)  # fmt: skip
    assert ok
    assert outcome.stdout.strip() == "said"  # the word that tells of the end is not shown


def test_asserts_do_not_see_each_other_and_code_is_a_module():
    counting = "from __future__ import annotations\nfrom dataclasses import dataclass\nseen = []\n"
    counting += "@dataclass\nclass P:\n    x: int = 1\ndef f():\n    seen.append(1)\n    return len(seen)\n"
    counting += "if __name__ == '__main__':\n    raise RuntimeError"
    assert passed(counting, CodeTests(("assert f() == 1", "assert f() == 1", "assert P().x == 1"))) == [True] * 3


def test_cases_compare_what_is_printed():
    tests = CodeTests(cases=(("2 3\n", "5\n"), ("1 1", "2")))
    assert passed("print(sum(map(int, input().split())), ' ')", tests) == [True, True]
    assert passed("print(5)", tests) == [True, False]
    assert passed("print(sum(map(int, input().split())))\nraise SystemExit(1)", tests) == [False, False]
    assert passed("print(' 5')", tests) == [False, False]  # blanks before it count
    assert passed("x = input()\ny = input()", tests) == [False, False]
    with pytest.raises(ValueError, match="at least one"):
        CodeTests()


def test_faster_code_wins_only_among_equals():
    seconds = {"slow": 4.0, "fast": 1.0, "worse": 0.0, "endless": 50.0}

    def run(source, stdin="", limits=None):
        name = source.split()[-1]
        wanted = "x" if name == "worse" and stdin == "2" else stdin
        return Outcome(0, "finished", wanted, "", seconds[name])

    tests = CodeTests(cases=(("1", "1"), ("2", "2")))
    reward = CodeReward(lambda prompt: tests, limits=Limits(cpu_s=10), faster=True, run=run)
    slow, fast, worse, endless = reward([""] * 4, ["# slow", "# fast", "# worse", "# endless"])
    assert (slow, fast) == pytest.approx((1 - 0.4 * 0.245, 1 - 0.1 * 0.245))
    assert worse == pytest.approx(0.5)
    assert endless == pytest.approx(1 - 0.245)  # even so above what passes fewer
    plain = CodeReward(lambda prompt: tests, limits=Limits(cpu_s=10), run=run)
    assert plain([""] * 2, ["# slow", "# fast"]).tolist() == [1, 1]


def test_code_is_taken_out_of_its_fences():
    assert code_of("x = 1") == "x = 1"
    assert code_of("a\n```py\nx = 1\n```\nb\n```\ny = 2\n```\n") == "x = 1\n\ny = 2\n"
    assert code_of("```python\r\nx = 1\n```".replace("\r", "")) == "x = 1\n"
    assert code_of("```bash\nls\n```") == "```bash\nls\n```"  # no Python: the text as it is, which will fail
    assert code_of("") == ""


def test_pairs_of_commits_say_where_they_are_from():
    commits = [Revision(f"Do {k}", f"old {k}", f"new {k}", f"repo@{k}") for k in range(200)]
    commits += [Revision("Same", "x = 1 \n", "\nx = 1"), Revision("", "a", "b"), Revision("Gone", "a", " ")]
    found = commit_pairs(commits, criterion="security", seed=3)
    assert found.counts == {"pairs": 200, "unchanged": 1, "incomplete": 2}
    for k, example in enumerate(found):
        chosen, rejected = (example.responses[i] for i in (example.pairs[0].chosen, example.pairs[0].rejected))
        assert (chosen.text, chosen.system) == (f"new {k}", "after commit")
        assert (rejected.text, rejected.system) == (f"old {k}", "before commit")
        assert (example.prompt, example.id, example.source, example.domain) == (
            f"Do {k}", f"repo@{k}", f"repo@{k}", "security",
        )  # fmt: skip
    first = np.mean([e.pairs[0].chosen == 0 for e in found])
    assert 0.4 < first < 0.6  # the better one stands first half the time: 200 draws, 2.8 standard deviations
    assert list(commit_pairs(commits, criterion="security", seed=3)) == list(found)
    assert [e.pairs for e in commit_pairs(commits, seed=4)] != [e.pairs for e in found]
    with pytest.raises(ValueError, match="criterion='taste'"):
        commit_pairs([], criterion="taste")


def test_pairs_of_critiques():
    found = critique_pairs([Revision("Add", "a+b", "a + b", why="blanks"), Revision("Add", "a", "a")])
    assert found.counts == {"pairs": 1, "unchanged": 1, "incomplete": 0}
    example = found[0]
    assert (example.id, example.source, example.pairs[0].annotator) == ("critique 0", None, "critique")
    assert example.responses[example.pairs[0].chosen] == Response("a + b", "after critique")


def test_a_choice_names_the_better_one_wherever_it_stands():
    made = commit_pairs(
        [Revision("Do it", f"bad_{k}", f"good_{k}", str(k)) for k in range(200)], criterion="efficiency"
    )
    letters = []
    for k, example in enumerate(made):
        choice = as_choice(example, seed=1)
        right = choice.responses[choice.pairs[0].chosen].text
        parts = {"A": choice.prompt.split("Code A:")[1].split("Code B:")[0], "B": choice.prompt.split("Code B:")[1]}
        assert f"good_{k}\n" in parts[right]
        assert f"good_{k}\n" not in parts["B" if right == "A" else "A"]
        assert choice.prompt.endswith("Which code is more efficient? Answer with A or B.")
        assert (choice.id, choice.domain) == (example.id, "efficiency")
        assert as_choice(example, seed=1) == choice
        letters.append(right)
    assert 0.4 < letters.count("A") / 200 < 0.6
    for criterion, words in CRITERIA.items():
        assert words in as_choice(made[0], criterion=criterion).prompt_text


def test_fences_in_code_do_not_end_it_early():
    example = Example("Do", (Response("x = '''\n```\n'''"), Response("y")), (Pair(0, 1),))
    prompt = as_choice(example).prompt
    assert "````python\nx = '''\n```\n'''\n````" in prompt
    assert prompt.endswith("Which code is better? Answer with A or B.")


def test_what_is_no_choice():
    sides = (Response("a"), Response("b"))
    with pytest.raises(ValueError, match="one pair"):
        as_choice(Example("q", sides))
    with pytest.raises(ValueError, match="no tie"):
        as_choice(Example("q", sides, (Pair(0, 1, tie=True),)))
    with pytest.raises(ValueError, match="criterion='x'"):
        as_choice(Example("q", sides, (Pair(0, 1),)), criterion="x")
    talk = Response((Message("assistant", "a"),))
    with pytest.raises(ValueError, match="conversations"):
        as_choice(Example("q", (talk, sides[1]), (Pair(0, 1),)))
