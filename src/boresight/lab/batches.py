"""Batches of the exact worlds: from policy, data and what is known of the moment, all that an objective asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from boresight.errors import InputError
from boresight.lab.drawn import Lists, Pairs, Responses
from boresight.lab.exact import Cells, Moment
from boresight.lab.grid import Drawn, Rows
from boresight.objectives import (
    Given,
    ListLogProbs,
    LogProbs,
    Objective,
    PairLogProbs,
    PairScores,
    PairSide,
    ResponseLogProbs,
)

if TYPE_CHECKING:
    from boresight.lab.policies import Policy

T = TypeVar("T")
SIDES = ("chosen", "rejected")
GRADIENT_NORMS = ("chosen_gradient_norm", "rejected_gradient_norm")


class Batches:
    """Batches of one policy at one step: tables are made once, what an objective does not need is not made."""

    def __init__(self, policy: Policy, needs: Sequence[str], moment: Moment) -> None:
        self.policy, self.world, self.needs, self.moment = policy, policy.world, needs, moment

    @cached_property
    def table(self) -> Tensor:
        """Log-probs of the policy."""
        return self.policy.log_probs()

    def of(self, known: Objective, data: Drawn) -> tuple[Any, Tensor]:
        """Batch and weights, see `Policy.batch`."""
        if known.takes is PairLogProbs and isinstance(data, Pairs):
            return self.pairs(data.rows()), data.weight
        if known.takes is PairScores and isinstance(data, Pairs):
            return self.policy.scored(data), data.weight
        if known.takes is ListLogProbs and isinstance(data, Pairs | Lists):
            return self.lists((data.lists() if isinstance(data, Pairs) else data).rows()), data.weight
        if known.takes is ResponseLogProbs and isinstance(data, Pairs | Responses):
            if isinstance(data, Responses):
                self._check_labels(known, data)
                rows = data.rows()
            elif "labels" in self.needs:
                rows = data.responses().rows()
            else:
                rows = data.rows().column(1 if "negatives" in self.needs else 0)
            return self.responses(rows), rows.weight
        what = type(data).__name__
        raise InputError(
            f"{known.id} takes {known.takes.__name__}, not {what}",
            mend="lists make pairs by .pairs(), and responses by .best(); pairs serve every objective",
        )

    def _check_labels(self, known: Objective, data: Responses) -> None:
        unlike = data.desirable == ("negatives" in self.needs)
        if "labels" not in self.needs and bool((unlike & (data.weight > 0)).any()):
            kind = "undesirable" if "negatives" in self.needs else "desirable"
            raise InputError(f"{known.id} takes {kind} responses only", mend="give .only(True) or .only(False) of them")

    def pairs(self, rows: Rows) -> PairLogProbs:
        """Place 0 chosen, place 1 rejected."""
        if "difference" in self.needs and "difference" not in rows.extra:
            rows = replace(rows, extra={**rows.extra, "difference": self.world.differences(rows)})
        sides = [rows.column(0), rows.column(1)]
        cells = [self.cells(side, name) for side, name in zip(sides, SIDES, strict=True)]
        policy = [self.side(side, there) for side, there in zip(sides, cells, strict=True)]
        others = tuple(PairSide(*both) for both in zip(*map(self.others, cells, SIDES), strict=True))
        given = self.given(rows, sides, others)
        if (twin := self._twin()) is not None:
            given["twin"] = PairSide(*(self.values(twin, there) for there in cells))
        if "gradient_norms" in self.needs:
            given["statistics"] = dict(zip(GRADIENT_NORMS, (self.norm(p, rows.weight) for p in policy), strict=True))
        reference = PairSide(*map(self.reference, cells, SIDES)) if "reference" in self.needs else None
        return PairLogProbs(PairSide(*policy), reference, Given(**given))

    def responses(self, rows: Rows) -> ResponseLogProbs:
        """One response a row."""
        policy, reference, given = self.single(rows)
        labels = rows.desirable.flatten() if rows.desirable is not None and "labels" in self.needs else None
        moved = self.mismatched(rows) if "mismatched_kl" in self.needs else None
        return ResponseLogProbs(policy, reference, desirable=labels, mismatched_kl=moved, given=given)

    def lists(self, rows: Rows) -> ListLogProbs:
        """K responses a row."""
        policy, reference, given = self.single(rows)
        seeds, count, k = rows.response.shape
        list_of = torch.arange(seeds * count).repeat_interleave(k)
        grades = rows.grades.flatten() if rows.grades is not None and "grades" in self.needs else None
        return ListLogProbs(policy, reference, list_of=list_of, count=seeds * count, grades=grades, given=given)

    def single(self, rows: Rows) -> tuple[LogProbs, LogProbs | None, Given]:
        """Log-probs of a grid under policy and reference, and all else."""
        cells = self.cells(rows, "response")
        given = self.given(rows, [rows], tuple(self.others(cells, "response")))
        if (twin := self._twin()) is not None:
            given["twin"] = self.values(twin, cells)
        reference = self.reference(cells, "response") if "reference" in self.needs else None
        return self.side(rows, cells), reference, Given(**given)

    def given(self, rows: Rows, sides: Sequence[Rows], others: Any) -> dict[str, Any]:
        """What a batch carries beyond log-probs."""
        found: dict[str, Any] = {"others": others, "state": self.moment.state, "heads": self.moment.heads}
        if "scores" in self.needs:
            found["scores"] = self.once("scores", lambda: self.scores(sides))
        if "progress" in self.needs:
            found["progress"] = self.moment.progress
        if "embedding" in self.needs:
            found["embedding"] = self.world.embedding[rows.prompt[:, :, 0].flatten()]
        if "samples" in self.needs:
            found["samples"] = self.samples(rows)
        return found

    def scores(self, sides: Sequence[Rows]) -> dict[str, Tensor]:
        """Every score that the data or the world knows, in the order of the log-probs."""
        names = {*self.world.score_names}
        names |= {n for n, known in sides[0].extra.items() if known.ndim == 3 and n != "samples"}
        found = {}
        for name in sorted(names):
            each = [
                side.extra[name] if name in side.extra else self.world.score(name, side.prompt, side.response)
                for side in sides
            ]
            found[name] = torch.cat([values.flatten() for values in each])
        return found

    def samples(self, rows: Rows) -> ListLogProbs:
        """The samples that the data brings, one list a row."""
        if "samples" not in rows.extra:
            raise InputError("the data has no samples of the reference", mend="train by fit, which draws them")
        drawn = rows.extra["samples"]
        cells = self.cells(replace(rows, prompt=rows.prompt[:, :, :1].expand_as(drawn), response=drawn), "samples")
        seeds, count, k = drawn.shape
        return ListLogProbs(
            self.values(self.table, cells),
            self.reference(cells, "samples"),
            list_of=torch.arange(seeds * count).repeat_interleave(k),
            count=seeds * count,
        )

    def mismatched(self, rows: Rows) -> Tensor:
        """Weighted mean log-ratio of the responses laid behind the prompt of the row before, 0-d."""
        with torch.no_grad():
            cells = self.cells(replace(rows, prompt=rows.prompt.roll(1, 1)), "moved")
            ratio = self.values(self.table, cells).sum() - self.reference(cells, "moved").sum()
            return (ratio * rows.weight.flatten()).sum() / rows.weight.sum()

    def norm(self, side: LogProbs, weight: Tensor) -> Tensor:
        """Norm of the gradient of a side's mean log-prob with respect to all that is trained, 0-d."""
        mean = (side.sum() * weight.flatten()).sum() / weight.sum()
        found = torch.autograd.grad(mean, self.policy.leaves(), retain_graph=True)
        return torch.stack([(g**2).sum() for g in found]).sum().sqrt().detach()

    def side(self, rows: Rows, cells: Cells) -> LogProbs:
        """The policy's log-probs of a grid, with all that is known of each token."""
        plain = self.values(self.table, cells)
        return LogProbs(plain.values, plain.owner, plain.count, self.known(rows, cells))

    def values(self, table: Tensor, cells: Cells) -> LogProbs:
        """Log-probs of a grid under a table of them."""
        return LogProbs(cells.of(table), cells.owner, cells.count)

    def once(self, name: object, make: Callable[[], T]) -> T:
        """What does not change as long as the data is the same."""
        memo = self.moment.memo
        if name not in memo:
            memo[name] = make()
        found: T = memo[name]
        return found

    def cells(self, rows: Rows, name: str) -> Cells:
        """Where the tokens of a grid stand."""
        return self.once((name, "cells"), lambda: self.world.cells(rows.prompt, rows.response))

    def reference(self, cells: Cells, name: str) -> LogProbs:
        """The reference's log-probs of a grid."""
        return self.once((name, "reference"), lambda: self.values(self.policy.reference, cells))

    def others(self, cells: Cells, name: str) -> list[LogProbs]:
        """Those of each further reference."""
        if "references" not in self.needs:
            return []
        if not self.policy.others:
            raise InputError("the objective needs further references", mend="give fit others=[logits, ...]")
        return self.once((name, "others"), lambda: [self.values(table, cells) for table in self.policy.others])

    def known(self, rows: Rows, cells: Cells) -> dict[str, Tensor]:
        """What is known of each token, by name, (tokens, ...)."""
        found: dict[str, Tensor] = {}
        if "token_kl" in self.needs:
            found["token_kl"] = cells.there(self._token_kl)
        if "reference_kl" in self.needs:
            found["reference_kl"] = cells.there(self._reference_kl)
        if "entropy" in self.needs:
            found["entropy"] = cells.there(_expectation(self.table, -self.table))
        if "hidden" in self.needs:
            found["hidden"] = self.policy.hidden(cells)
        if "reference_hidden" in self.needs:
            found["reference_hidden"] = self.policy.hidden(cells, reference=True)
        if "steps" in self.needs:
            extra = dict(rows.extra)
            if "step" not in extra or "step_score" not in extra:
                extra = dict(zip(("step", "step_score"), self.world.steps(rows), strict=True)) | extra
            found |= {name: self._placed(extra[name], rows, cells) for name in ("step", "step_score")}
        for name in ("noise", "difference"):
            if name in self.needs and name in rows.extra:
                found[name] = self._placed(rows.extra[name], rows, cells)
        return found

    @cached_property
    def _token_kl(self) -> Tensor:
        return _expectation(self.table, self.table - self.policy.reference)

    @cached_property
    def _reference_kl(self) -> Tensor:
        return _expectation(self.policy.reference, self.policy.reference - self.table)

    def _placed(self, values: Tensor, rows: Rows, cells: Cells) -> Tensor:
        """(seeds, n, K, longest) at the tokens of a grid (seeds, n, K)."""
        return values.expand(*rows.response.shape, -1)[cells.context[0], cells.row, cells.column, cells.position]

    def _twin(self) -> Tensor | None:
        return self._twin_table if "twin" in self.needs and self.policy.twin is not None else None

    @cached_property
    def _twin_table(self) -> Tensor:
        found: Tensor = self.policy.twin.log_probs()
        return found


def _expectation(log_probs: Tensor, values: Tensor) -> Tensor:
    """Sum of exp(log_probs) * values over the last dimension; what has probability 0 adds nothing."""
    there = log_probs > -torch.inf
    return torch.where(there, log_probs.exp() * values.masked_fill(~there, 0.0), 0.0).sum(-1)
