"""What an objective is given: one import for all batch types."""

from __future__ import annotations

from boresight.objectives._given import Given
from boresight.objectives._lists import ListLogProbs
from boresight.objectives._logprobs import LogProbs
from boresight.objectives._pairs import PairLogProbs, PairScores, PairSide
from boresight.objectives._responses import ResponseLogProbs

__all__ = ["Given", "ListLogProbs", "LogProbs", "PairLogProbs", "PairScores", "PairSide", "ResponseLogProbs"]
