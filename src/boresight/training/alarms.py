"""Alarms: what a look at the metrics says in words, when training goes wrong or looks as if it did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

from boresight.data.tokens import Row, Tokens
from boresight.objectives import Objective
from boresight.training.alarm_rules import Memory, Rule, Severity, closed_form, rules

STUCK_STEPS = 50
"""Steps at the closed form before the loss counts as stuck: longer than most warm-ups."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something to look at: what happened, in a sentence for people, and what mends it.

    severity: note (good to know), warning (the result may suffer), fatal (the run cannot go on).
    """

    step: int
    name: str
    severity: Severity
    sentence: str
    mend: str

    def __str__(self) -> str:
        return f"step {self.step}, {self.severity}, {self.name}: {self.sentence}\n  mend: {self.mend}"


class Alarms:
    """Looks at metrics as they come and raises each kind of alarm once, and again only after it has cleared.

    objective: what is trained; hyperparameters: its keyword arguments, for the closed form of its loss.
    Metric names are those of the loop; a rule whose metrics are absent from a look says nothing.
    """

    def __init__(
        self,
        objective: Objective | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        *,
        stuck_steps: int = STUCK_STEPS,
    ) -> None:
        self._memory = Memory(objective, closed_form(objective, hyperparameters or {}), {}, {})
        self._rules = rules(stuck_steps)
        self._streaks: dict[str, list[int]] = {}
        self._clear: dict[str, int] = {}
        self._raised: dict[str, str] = {}

    def look(self, step: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """The alarms that these metrics raise at this step, worst first."""
        finite = {k: float(v) for k, v in metrics.items() if isfinite(v)}
        for key, value in finite.items():
            self._memory.first.setdefault(key, value)
        self._memory.last |= finite
        found = [a for a in (self._judge(rule, step, metrics, finite) for rule in self._rules) if a is not None]
        return sorted(found, key=lambda a: ("fatal", "warning", "note").index(a.severity))

    def _judge(self, rule: Rule, step: int, metrics: Mapping[str, float], finite: Mapping[str, float]) -> Alarm | None:
        seen = metrics if rule.raw else finite
        if not all(key in seen for key in rule.keys):
            return None
        variant = f"{rule.name}|{','.join(rule.keys)}"
        finding = rule.judge(seen, self._memory)
        if finding is None:
            self._streaks.pop(variant, None)
            self._clear[variant] = self._clear.get(variant, 0) + 1
            if self._raised.get(rule.name) == variant and self._clear[variant] >= rule.patience:
                del self._raised[rule.name]
            return None
        self._clear.pop(variant, None)
        count, since = self._streaks.get(variant, (0, step))
        self._streaks[variant] = [count + 1, since]
        if rule.name in self._raised or count + 1 < rule.patience or step - since < rule.steps:
            return None
        self._raised[rule.name] = variant
        return Alarm(step, rule.name, *finding)

    def state_dict(self) -> dict[str, Any]:
        """What must outlive an interruption, as plain JSON values."""
        return {
            "first": dict(self._memory.first),
            "last": dict(self._memory.last),
            "streaks": {k: list(v) for k, v in self._streaks.items()},
            "clear": dict(self._clear),
            "raised": dict(self._raised),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; an empty mapping is a fresh start."""
        self._memory.first = dict(state.get("first", {}))
        self._memory.last = dict(state.get("last", {}))
        self._streaks = {k: [int(x) for x in v] for k, v in state.get("streaks", {}).items()}
        self._clear = dict(state.get("clear", {}))
        self._raised = dict(state.get("raised", {}))


def write_offending_rows(path: str | Path, rows: Sequence[Row], tokenizer: Any, losses: Sequence[float]) -> None:
    """Write rows as JSONL, one each, the worst loss first: source, loss, and the text as the model was given it.

    Each sequence is a list of pieces that are trained on or not, special tokens shown. losses: (rows,); those that
    are not finite are written as the words nan, inf and -inf. Raises ValueError if the lengths differ.
    """
    if len(rows) != len(losses):
        raise ValueError(f"{len(rows)} rows but {len(losses)} losses")
    order = sorted(range(len(rows)), key=lambda i: (isfinite(losses[i]), -losses[i] if isfinite(losses[i]) else 0.0))
    lines = [json.dumps(_row(rows[i], tokenizer, float(losses[i])), ensure_ascii=False) for i in order]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.partial")
    aside.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    aside.replace(target)


def _row(row: Row, tokenizer: Any, loss: float) -> dict[str, Any]:
    return {
        "source": row.source,
        "index": row.index,
        "loss": loss if isfinite(loss) else str(loss),
        "weight": row.weight,
        "desirable": row.desirable,
        "sequences": [
            {"tokens": len(t), "response_tokens": t.response_length, "ends": t.ends, "pieces": _pieces(t, tokenizer)}
            for t in row.sequences
        ],
    }


def _pieces(tokens: Tokens, tokenizer: Any) -> list[dict[str, Any]]:
    cuts = [0, *(i for i in range(1, len(tokens)) if tokens.mask[i] != tokens.mask[i - 1]), len(tokens)]
    return [
        {"trained": bool(tokens.mask[a]), "text": tokenizer.decode(tokens.ids[a:b].tolist(), skip_special_tokens=False)}
        for a, b in pairwise(cuts)
        if b > a
    ]
