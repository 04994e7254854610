"""Which code is better: scored by running it on tests, and pairs for a judge to learn from."""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np

from boresight.curation.curated import Curated
from boresight.data.example import Example, Pair, Response
from boresight.paper import paper
from boresight.rewards.base import Content, Reward, Values, last_text
from boresight.rewards.sandbox import Limits, Outcome, run_python

CRITERIA = {
    "correctness": "is correct: it does what the instruction asks for",
    "efficiency": "is more efficient",
    "security": "is more secure",
    "preference": "is better",
}
"""What one may ask of two pieces of code; the paper's four, in words of ours."""
_FENCED = re.compile(
    r"^[ \t]*(?:```|~~~)[ \t]*(?:python3?|py)?[ \t]*\n(.*?)^[ \t]*(?:```|~~~)[ \t]*$", re.S | re.M | re.I
)


@dataclass(frozen=True, slots=True)
class CodeTests:
    """How code for one instruction is tested.

    asserts: Python statements, each run after the code in a fresh process; one that raises nothing is passed.
    cases: pairs of what comes on stdin and what must be on stdout, but for blanks at the ends of lines and of the
    text. Raises ValueError if there is neither.
    """

    asserts: tuple[str, ...] = ()
    cases: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.asserts and not self.cases:
            raise ValueError("tests need at least one assert or case")

    def __len__(self) -> int:
        return len(self.asserts) + len(self.cases)


def code_of(response: str) -> str:
    """The code in a response: its fenced Python blocks, one after the other; the whole text where there is none."""
    blocks = _FENCED.findall(response)
    return "\n".join(blocks) if blocks else response


def run_tests(
    code: str, tests: CodeTests, limits: Limits | None = None, run: Callable[..., Outcome] = run_python
) -> list[tuple[bool, Outcome]]:
    """Whether each test was passed, asserts first, and how its process ended.

    A test that was stopped by a limit is not passed. For an assert to count, the process must reach its end, which it
    tells by a word that differs each time: code that merely leaves with status 0 does not pass. Code that reads its own
    source can find that word: this is no defence against code that is written to cheat.
    """
    done = []
    for line in tests.asserts:
        word = secrets.token_hex(16)
        source = (
            "import sys, types\nmodule = sys.modules['solution'] = types.ModuleType('solution')\n"
            "space = module.__dict__\n"
            f"exec(compile({code!r}, 'solution.py', 'exec'), space)\n"
            f"exec(compile({line!r}, 'test.py', 'exec'), space)\n"
            f"print({word!r}, flush=True)\n"
        )
        outcome = run(source, limits=limits)
        passed = outcome.ended == "finished" and word in outcome.stdout
        done.append((passed, replace(outcome, stdout=outcome.stdout.replace(word, ""))))
    for given, wanted in tests.cases:
        outcome = run(code, given, limits)
        done.append((outcome.ended == "finished" and _lines(outcome.stdout) == _lines(wanted), outcome))
    return done


class CodeReward(Reward):
    """The share of an instruction's tests that the code in a response passes; nan where no tests are known for it.

    tests: by the prompt's text, or a function of it that returns None where it knows none. faster: with it, of two
    pieces of code that pass equally many tests the one that takes less processor time scores higher: what it takes, as
    a share of the limit, lowers the score by less than half a test (and only where one is passed). Times differ from
    run to run, so then scores do, a little. Code is run as `sandbox.run_python` says, with all that it cannot guard.
    """

    def __init__(
        self,
        tests: Mapping[str, CodeTests] | Callable[[str], CodeTests | None],
        *,
        limits: Limits | None = None,
        faster: bool = False,
        run: Callable[..., Outcome] = run_python,
    ) -> None:
        self.tests = tests if callable(tests) else tests.get
        self.limits, self.faster, self.run = limits or Limits(), faster, run

    def score(self, prompts: Sequence[Content], responses: Sequence[Content]) -> Values:
        """(N,), from 0 to 1."""
        return np.array([self._one(last_text(p), last_text(r)) for p, r in zip(prompts, responses, strict=True)], float)

    def _one(self, prompt: str, response: str) -> float:
        tests = self.tests(prompt)
        if tests is None:
            return nan
        found = run_tests(code_of(response), tests, self.limits, self.run)
        times = [outcome.cpu_s / self.limits.cpu_s for passed, outcome in found if passed]
        lost = min(float(np.mean(times)), 1.0) * 0.49 / len(tests) if times and self.faster else 0.0
        return len(times) / len(tests) - lost


@dataclass(frozen=True, slots=True)
class Revision:
    """Code before and after a change, with the instruction that both answer, and where it is from.

    why: the commit's message, or the critique that the revision followed.
    """

    instruction: str
    before: str
    after: str
    source: str = ""
    why: str = ""


@paper("codefavor")
def commit_pairs(commits: Iterable[Revision], *, criterion: str = "preference", seed: int = 0) -> Curated:
    """Pairs from commits: the code after the commit is preferred to the code before it (Commit-Instruct).

    Each example has its two pieces of code in an order drawn from the seed; each response's `system` says "before
    commit" or "after commit", the pair's annotator is "commit", `domain` is the criterion, `source` and `id` are the
    commit's. Commits that change nothing but blanks at line ends, or lack instruction or code, are left out and
    counted.

    Raises ValueError for a criterion that is none of `CRITERIA`.
    Source: Liu et al. 2024, Learning code preference via synthetic evolution (CodeFavor), section 2. There a model
    writes the instruction and rewrites both pieces; here they are given.
    """
    return _evolved(commits, "commit", criterion, seed)


@paper("codefavor")
def critique_pairs(drafts: Iterable[Revision], *, criterion: str = "preference", seed: int = 0) -> Curated:
    """Pairs from drafts: the revision after a critique is preferred to the draft (Critic-Evol); as `commit_pairs`.

    Drafts that the critic left as they were are left out and counted.
    """
    return _evolved(drafts, "critique", criterion, seed)


def _evolved(changes: Iterable[Revision], what: str, criterion: str, seed: int) -> Curated:
    _known(criterion)
    rng = random.Random(seed)
    counts = {"pairs": 0, "unchanged": 0, "incomplete": 0}
    made = []
    for k, change in enumerate(changes):
        if not (change.instruction.strip() and change.before.strip() and change.after.strip()):
            counts["incomplete"] += 1
            continue
        if _lines(change.before) == _lines(change.after):
            counts["unchanged"] += 1
            continue
        sides = [Response(change.before, f"before {what}"), Response(change.after, f"after {what}")]
        swapped = rng.random() < 0.5
        pair = Pair(0, 1, annotator=what) if swapped else Pair(1, 0, annotator=what)
        order = tuple(sides[::-1] if swapped else sides)
        name = change.source or None
        made.append(
            Example(change.instruction, order, (pair,), domain=criterion, id=name or f"{what} {k}", source=name)
        )
        counts["pairs"] += 1
    return Curated(tuple(made), counts)


def as_choice(example: Example, *, criterion: str | None = None, seed: int = 0) -> Example:
    """A pair of code as a question whose answer is A or B: for a model that learns to say which, by one token.

    The order of the two is drawn from the seed and the example's id, so that it is the same each time. Returns an
    example with the responses "A" and "B" and the pair that prefers the right one; for supervised training take the
    chosen response. criterion: one of `CRITERIA`; by default the example's domain, or "preference".

    Raises ValueError unless the example has exactly one pair and no tie, for an unknown criterion, or conversations.
    Source: as `commit_pairs` (instruction, code A, code B, criterion; the next token is A or B); the words are ours.
    """
    criterion = criterion or (example.domain if example.domain in CRITERIA else "preference")
    _known(criterion)
    if len(example.pairs) != 1 or example.pairs[0].tie:
        raise ValueError("a choice is made of an example with one pair that is no tie")
    pair = example.pairs[0]
    chosen, rejected = (example.responses[i].content for i in (pair.chosen, pair.rejected))
    if not (isinstance(chosen, str) and isinstance(rejected, str)):
        raise ValueError("a choice is made of texts, not of conversations")
    first = random.Random(f"{seed}/{example.id}/{example.prompt_text}").random() < 0.5
    a, b = (chosen, rejected) if first else (rejected, chosen)
    prompt = (
        f"Instruction:\n{example.prompt_text.strip()}\n\nCode A:\n{_fenced(a)}\n\nCode B:\n{_fenced(b)}\n\n"
        f"Which code {CRITERIA[criterion]}? Answer with A or B."
    )
    right = Pair(*((0, 1) if first else (1, 0)), weight=pair.weight, annotator=pair.annotator)
    return replace(example, prompt=prompt, responses=(Response("A"), Response("B")), pairs=(right,), domain=criterion,
                   scores=(), labels=(), ranks=(), steps=())  # fmt: skip


def _fenced(code: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    body = code.strip("\n")
    return f"{fence}python\n{body}\n{fence}"


def _known(criterion: str) -> None:
    if criterion not in CRITERIA:
        raise ValueError(f"criterion={criterion!r} is none of {', '.join(CRITERIA)}")


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").rstrip().splitlines()]
