"""Boresight aligns models to preferences, domains, experts and other representations.

    import boresight as bs
    bs.train(method="dpo", model="my-model", data="prefs.jsonl", out="run", beta=0.05, lr=1e-6)

Every verb of the command line is one function here; everything is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "BoresightError": "boresight.errors",
    "Example": "boresight.data.example",
    "Message": "boresight.data.example",
    "Response": "boresight.data.example",
    "read": "boresight.data.read",
    "check": "boresight.training.check",
    "LogProbs": "boresight.objectives",
    "PairLogProbs": "boresight.objectives",
    "PairScores": "boresight.objectives",
    "ResponseLogProbs": "boresight.objectives",
    "objective": "boresight.objectives",
    "objectives": "boresight.objectives",
    "train": "boresight.training.train",
    "evaluate": "boresight.training.evaluate",
    "compare": "boresight.training.compare",
    "explain": "boresight.judging.explain",
    "choose": "boresight.training.choose",
    "judge": "boresight.judging.judge",
    "rank": "boresight.judging.rank",
    "score": "boresight.training.score",
    "methods": "boresight.catalogue",
    "show": "boresight.catalogue",
}

if TYPE_CHECKING:
    from boresight.catalogue import methods as methods
    from boresight.catalogue import show as show
    from boresight.data.example import Example as Example
    from boresight.data.example import Message as Message
    from boresight.data.example import Response as Response
    from boresight.data.read import read as read
    from boresight.errors import BoresightError as BoresightError
    from boresight.judging.explain import explain as explain
    from boresight.judging.judge import judge as judge
    from boresight.judging.rank import rank as rank
    from boresight.objectives import LogProbs as LogProbs
    from boresight.objectives import PairLogProbs as PairLogProbs
    from boresight.objectives import PairScores as PairScores
    from boresight.objectives import ResponseLogProbs as ResponseLogProbs
    from boresight.objectives import objective as objective
    from boresight.objectives import objectives as objectives
    from boresight.training.check import check as check
    from boresight.training.choose import choose as choose
    from boresight.training.compare import compare as compare
    from boresight.training.evaluate import evaluate as evaluate
    from boresight.training.score import score as score
    from boresight.training.train import train as train

__all__ = [*_WHERE, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'boresight' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
