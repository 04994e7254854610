"""Running a claim: both arms over all seeds, the control, the sweep."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boresight.lab.claims import AGAINST, BROKEN, CONTROLS, HOLDS, Claim, Expectation, difference, overall
from boresight.stats import Interval

if TYPE_CHECKING:
    from collections.abc import Iterator

Values = dict[str, dict[str, list[float]]]
"""Outcome -> arm -> one value for each seed."""


@dataclass(frozen=True)
class Judged:
    """An expectation and what came of it: the effect (treatment - baseline, or the largest residual), its interval."""

    outcome: str
    expects: str
    effect: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Result:
    """What running a claim came to. `control` and each of its tries hold a verdict; `error` is set where it raised.

    seconds: on one core, without the sweep.
    sweep: knob -> {"default": value, "points": [{"value": v, "judged": [...]}, ...]}.
    """

    id: str
    part: str
    says: str
    treatment: str
    baseline: str
    doc: str
    verdict: str
    judged: tuple[Judged, ...] = ()
    control: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 0
    seconds: float = 0.0
    values: Values = field(default_factory=dict)
    sweep: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def key(self) -> str:
        """`ID`, or `ID/PART`."""
        return f"{self.id}/{self.part}" if self.part else self.id

    def to_dict(self) -> dict[str, Any]:
        """The line of results.jsonl: numbers at 6 significant digits, whole seconds."""
        rounded: dict[str, Any] = _rounded(asdict(replace(self, seconds=float(round(self.seconds)))))
        return rounded | {"seconds": round(self.seconds)}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list | tuple) else value


def run_claim(one: Claim, *, seeds: int | None = None, sweep: bool = False) -> Result:
    """Run one claim at seeds 0, 1, ..., its own number of them by default; what it raises makes it broken."""
    started = time.process_time()
    numbers = list(range(seeds or one.seeds))
    result = Result(one.id, one.part, one.says, one.treatment, one.baseline, one.doc, BROKEN, seeds=len(numbers))
    with _quietly():
        try:
            result = _identity(one, numbers, result) if one.is_identity else _compared(one, numbers, result)
            result = replace(result, seconds=time.process_time() - started)
            if sweep and one.sweep:
                result = replace(result, sweep={knob: _swept(one, numbers, knob, result.judged) for knob in one.sweep})
        except Exception as error:
            told = f"{type(error).__name__}: {error}{_place(error, one)}"
            result = replace(result, verdict=BROKEN, error=told, seconds=time.process_time() - started)
    return result


@contextmanager
def _quietly() -> Iterator[None]:
    """One torch thread, nothing on stdout, global generators as they were, and the same for every claim."""
    import torch

    threads, python, numpy = torch.get_num_threads(), random.getstate(), np.random.get_state()  # noqa: NPY002
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), redirect_stdout(sys.stderr):
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _call(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The function, with global generators in one state, so that no call depends on what ran before."""
    import torch

    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    return function(*args, **options)


def _arm(one: Claim, arm: str, seeds: Sequence[int], **knobs: Any) -> dict[str, NDArray[np.float64]]:
    told = _call(one.function, arm, list(seeds), **knobs)
    wanted = list(dict.fromkeys(e.outcome for e in one.expects))
    if not isinstance(told, Mapping) or set(told) != set(wanted):
        names = list(told) if isinstance(told, Mapping) else type(told).__name__
        raise ValueError(f"the {arm} returned {names}, and what is expected is of {wanted}")
    return {name: _vector(told[name], len(seeds), f"{arm}: {name}") for name in wanted}


def _vector(value: Any, count: int, name: str) -> NDArray[np.float64]:
    value = value.detach().cpu() if hasattr(value, "detach") else value
    found = np.asarray(value, np.float64)
    if found.shape != (count,):
        raise ValueError(f"{name} has shape {found.shape}, and should have one value for each of {count} seeds")
    if not np.isfinite(found).all():
        raise ValueError(f"{name} is not finite at seed {int(np.flatnonzero(~np.isfinite(found))[0])}")
    return found


def _judge(
    expects: Sequence[Expectation],
    treatment: Mapping[str, NDArray[np.float64]],
    baseline: Mapping[str, NDArray[np.float64]],
) -> tuple[Judged, ...]:
    judged = []
    for e in expects:
        apart = difference(treatment[e.outcome], baseline[e.outcome])
        judged.append(Judged(e.outcome, e.words, apart.value, apart.low, apart.high, e.judge(apart)))
    return tuple(judged)


def _compared(one: Claim, seeds: Sequence[int], result: Result) -> Result:
    treatment, baseline = _arm(one, "treatment", seeds), _arm(one, "baseline", seeds)
    judged = _judge(one.expects, treatment, baseline)
    values = {name: {"treatment": treatment[name].tolist(), "baseline": baseline[name].tolist()} for name in baseline}
    tries: list[dict[str, Any]] = []
    for offset, against in zip(CONTROLS, AGAINST, strict=True):
        other = _arm(one, "baseline", [s + offset for s in seeds])
        beside = _arm(one, "baseline", [s + against for s in seeds]) if against else baseline
        found = _judge(one.expects, other, beside)
        verdict = overall([j.verdict for j in found])
        tries.append({"offset": offset, "verdict": verdict, "judged": [asdict(j) for j in found]})
        held = sum(t["verdict"] == HOLDS for t in tries)
        if held in (0, 2) or len(tries) - held == 2:
            break
    control = HOLDS if held >= 2 else next(t["verdict"] for t in tries if t["verdict"] != HOLDS)
    verdict = BROKEN if control == HOLDS else overall([j.verdict for j in judged])
    return replace(result, verdict=verdict, judged=judged, values=values, control={"verdict": control, "tries": tries})


def _identity(one: Claim, seeds: Sequence[int], result: Result) -> Result:
    (expected,) = one.expects
    exact, altered = (
        _vector(_call(one.function, list(seeds), altered=a), len(seeds), f"altered={a}") for a in (False, True)
    )
    largest, control = (Interval(*(float(np.abs(r).max()),) * 3, len(seeds)) for r in (exact, altered))
    found = Judged("residual", expected.words, *(largest.value,) * 3, expected.judge(largest))
    other = Judged("residual", expected.words, *(control.value,) * 3, expected.judge(control))
    tries = [{"offset": 0, "verdict": other.verdict, "judged": [asdict(other)]}]
    return replace(
        result,
        verdict=BROKEN if other.verdict == HOLDS else found.verdict,
        judged=(found,),
        values={"residual": {"treatment": np.abs(exact).tolist(), "baseline": np.abs(altered).tolist()}},
        control={"verdict": other.verdict, "tries": tries},
    )


def _swept(one: Claim, seeds: Sequence[int], knob: str, known: tuple[Judged, ...]) -> dict[str, Any]:
    """Both arms at each value of one knob, the others at their defaults, at which the outcome is `known`."""
    points = []
    for value in one.sweep[knob]:
        arms = ("treatment", "baseline") if value != one.default(knob) else ()
        told = [_arm(one, arm, seeds, **{knob: value}) for arm in arms]
        judged = _judge(one.expects, *told) if told else known
        points.append({"value": value, "judged": [asdict(j) for j in judged]})
    return {"default": one.default(knob), "points": points}


def _place(error: Exception, one: Claim) -> str:
    """The line of the claim's file at which it raised."""
    file, line, trace = one.function.__code__.co_filename, 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" ({Path(file).name}:{line})" if line else ""
