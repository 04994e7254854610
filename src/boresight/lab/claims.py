"""Claims: what a paper says, as a function of a world that tells whether it is so.

    from boresight.lab.claims import Arm, claim, identity, less, more, same

    @claim("dpo-shift", says="f < 1 ends with a higher chosen log-prob", expects=(more("chosen log-prob"),),
           treatment="dpo-shift f=0.7", baseline="dpo", sweep={"f": (0.5, 0.7, 1.0)})
    def dpo_shift(arm: Arm, seeds: Sequence[int], *, f: float = 0.7) -> Mapping[str, Any]:
        '''What the world is, what was varied, and where it stops holding.'''

An arm is "treatment" or "baseline". The function gets all seeds at once and returns, for each outcome that is expected
of, one value for each seed, shape (seeds,); it draws everything random from the seeds. How verdicts come about is
said by `HOW`, which the page of claims shows; `claimrun.py` runs claims, `claimpool.py` many at once, `claimfiles.py`
finds them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from boresight.catalogue.verdicts import WORST_FIRST
from boresight.stats import Interval, mean

Arm = Literal["treatment", "baseline"]
Kind = Literal["more", "less", "same", "identity"]

HOLDS, FAILS, UNDECIDED, BROKEN = "holds", "does not hold", "undecided", "broken"
CONTROLS = (1000, 2000, 3000)
AGAINST = (0, 2500, 3500)
"""What is added to the seeds for the control, and where it holds for its two repetitions; on either side."""

HOW = """\
A claim is run once as the *treatment* and once as the *baseline* for each of its seeds (8 where nothing else is said).
What is judged is the difference, treatment - baseline, paired by seed, with its 95% t-interval. `more` holds where the
whole interval lies above the bound, which is 0 where none is given; it does not hold where the whole interval lies at
or below it; else it is undecided. `less` is its mirror image. `same` holds where the whole interval lies within the
bounds, and does not hold where it lies wholly outside. A claim *holds* if all it expects holds, *does not hold* if
anything it expects does not, and is *undecided* otherwise.

The *control* puts the baseline in the treatment's place, with other seeds (seed + 1000), so that there is nothing to be
found; it must not come out as "holds". As one such interval in forty errs, a control that holds is repeated twice with
fresh seeds on both sides (seed + 2000 against seed + 2500, seed + 3000 against seed + 3500), and counts as holding if
two of the three do. A claim whose control holds is *broken*: its experiment finds differences where there are none.

An *identity* states a tolerance instead. It holds if the largest residual of all seeds is within it; its control is a
copy that was altered on purpose (a wrong sign, a missing term), which must exceed it, or else the claim is broken.
"""

F = TypeVar("F", bound=Callable[..., Any])
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is expected of one outcome's difference, treatment - baseline, or of an identity's largest residual."""

    outcome: str
    kind: Kind
    bound: float = 0.0

    @property
    def words(self) -> str:
        """For people: `more`, `less by 0.1`, `same within 0.05`."""
        if self.kind in ("same", "identity"):
            return f"{'same ' if self.kind == 'same' else ''}within {self.bound:g}"
        return self.kind + (f" by {self.bound:g}" if self.bound else "")

    def judge(self, difference: Interval) -> str:
        """What the interval of the difference says: holds, does not hold, or undecided."""
        low, high, bound = difference.low, difference.high, self.bound
        if self.kind == "more":
            return HOLDS if low > bound else FAILS if high <= bound else UNDECIDED
        if self.kind == "less":
            return HOLDS if high < -bound else FAILS if low >= -bound else UNDECIDED
        if self.kind == "same":
            return HOLDS if -bound <= low and high <= bound else FAILS if low > bound or high < -bound else UNDECIDED
        return HOLDS if high <= bound else FAILS


def more(outcome: str, by: float = 0.0) -> Expectation:
    """The treatment's mean is above the baseline's by more than `by` (>= 0)."""
    return Expectation(outcome, "more", _bound(by, "by"))


def less(outcome: str, by: float = 0.0) -> Expectation:
    """The treatment's mean is below the baseline's by more than `by` (>= 0)."""
    return Expectation(outcome, "less", _bound(by, "by"))


def same(outcome: str, within: float) -> Expectation:
    """The means differ by at most `within` (> 0)."""
    if not within > 0:
        raise ValueError(f"within must be positive, not {within}")
    return Expectation(outcome, "same", _bound(within, "within"))


def _bound(value: float, name: str) -> float:
    if not (isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and not negative, not {value}")
    return float(value)


@dataclass(frozen=True)
class Claim:
    """A declared claim. `id` is the catalogue's; `part` tells several claims of one paper apart, "" for one alone."""

    id: str
    part: str
    says: str
    expects: tuple[Expectation, ...]
    treatment: str
    baseline: str
    seeds: int
    smoke: bool
    function: Callable[..., Any]
    sweep: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """`ID`, or `ID/PART`."""
        return f"{self.id}/{self.part}" if self.part else self.id

    @property
    def is_identity(self) -> bool:
        """Whether it states a tolerance and no comparison."""
        return self.expects[0].kind == "identity"

    @property
    def doc(self) -> str:
        """The docstring: the world, what was varied, where it stops holding."""
        return inspect.getdoc(self.function) or ""

    def default(self, knob: str) -> Any:
        """The value of a swept knob at which the verdict is taken."""
        return inspect.signature(self.function).parameters[knob].default


def claim(
    id: str,
    *,
    says: str,
    expects: Sequence[Expectation] | Expectation,
    treatment: str,
    baseline: str,
    part: str = "",
    sweep: Mapping[str, Sequence[Any]] | None = None,
    seeds: int = 8,
    smoke: bool = False,
) -> Callable[[F], F]:
    """Declare `function(arm, seeds, *, knobs) -> {outcome: (seeds,)}` as a claim; the function is returned unchanged.

    id: the paper's in the catalogue. says: the claim in words. expects: what is expected of treatment - baseline.
    treatment, baseline: what the two arms are, in words. part: a name, where a paper has several claims. sweep: knobs
    (keyword arguments with defaults) that decide, with the values at which both arms are run and the effect is drawn.
    seeds: how many. smoke: it takes a few seconds and is run with every change.

    Raises ValueError if the declaration is unusable: with `same` alone a control (baseline against baseline) would
    have to hold, so such a claim is an `identity`.
    """
    expects = (expects,) if isinstance(expects, Expectation) else tuple(expects)
    key = _checked(id, part, says, seeds)
    if not expects or any(e.kind == "identity" for e in expects):
        raise ValueError(f"claim {key}: expects nothing; give more(...), less(...), same(...)")
    if all(e.kind == "same" for e in expects):
        raise ValueError(
            f"claim {key}: of `same` alone no control can fail, since a baseline is the same as itself; "
            "declare it with @identity(...), or expect `more` or `less` of something too"
        )
    if not treatment or not baseline:
        raise ValueError(f"claim {key}: say what treatment and baseline are, in words")

    def register(function: F) -> F:
        _described(function, key, ("arm", "seeds"))
        knobs = {k: tuple(v) for k, v in (sweep or {}).items()}
        for knob, values in knobs.items():
            parameter = inspect.signature(function).parameters.get(knob)
            if (
                parameter is None
                or parameter.kind is not parameter.KEYWORD_ONLY
                or parameter.default is parameter.empty
            ):
                raise ValueError(f"claim {key}: sweeps {knob}, which is no keyword-only argument with a default")
            if len(values) < 2:
                raise ValueError(f"claim {key}: sweeps {knob} over {len(values)} values; give two or more")
        made = Claim(id, part, says, expects, treatment, baseline, seeds, smoke, function, knobs)
        function.__claim__ = made  # type: ignore[attr-defined]
        return function

    return register


def identity(
    id: str,
    *,
    says: str,
    tolerance: float,
    altered: str = "an altered copy",
    part: str = "",
    seeds: int = 8,
    smoke: bool = False,
) -> Callable[[F], F]:
    """Declare `function(seeds, *, altered: bool) -> residuals (seeds,)` as a claim that something is exact.

    It holds if the largest residual at altered=False is at most `tolerance`; at altered=True, which `altered` describes
    in words, the largest must exceed it. The function is returned unchanged. Raises ValueError as `claim` does.
    """
    key = _checked(id, part, says, seeds)
    if not 0 < tolerance < inf:
        raise ValueError(f"claim {key}: tolerance must be positive and finite, not {tolerance}")

    def register(function: F) -> F:
        _described(function, key, ("seeds", "altered"))
        expects = (Expectation("residual", "identity", float(tolerance)),)
        made = Claim(id, part, says, expects, "exact", altered, seeds, smoke, function)
        function.__claim__ = made  # type: ignore[attr-defined]
        return function

    return register


def _checked(id: str, part: str, says: str, seeds: int) -> str:
    if not _NAME.fullmatch(id) or (part and not _NAME.fullmatch(part)):
        raise ValueError(f"claim {id!r}, part {part!r}: a name is small letters, digits and single hyphens")
    key = f"{id}/{part}" if part else id
    if not says.strip():
        raise ValueError(f"claim {key}: says nothing")
    if seeds < 2:
        raise ValueError(f"claim {key}: {seeds} seeds have no spread; give 2 or more")
    return key


def _described(function: Callable[..., Any], key: str, takes: Sequence[str]) -> None:
    if list(inspect.signature(function).parameters)[: len(takes)] != list(takes):
        raise ValueError(f"claim {key}: the function takes ({', '.join(takes)}, ...)")
    if not inspect.getdoc(function):
        raise ValueError(f"claim {key}: a docstring says what the world is, what was varied, where it stops holding")


def difference(treatment: ArrayLike, baseline: ArrayLike) -> Interval:
    """The mean of the paired differences, (seeds,) each, with its 95% t-interval; a point where all are equal.

    One seed alone says nothing: the interval is infinite.
    """
    apart = np.asarray(treatment, np.float64) - np.asarray(baseline, np.float64)
    if apart.size > 1 and (apart == apart[0]).all():
        return Interval(*(float(apart[0]),) * 3, apart.size)
    return mean(apart)


def overall(verdicts: Sequence[str]) -> str:
    """The verdict on a claim from those on what it expects, or of a paper from those on its claims: the worst."""
    return min(verdicts, key=WORST_FIRST.index)
