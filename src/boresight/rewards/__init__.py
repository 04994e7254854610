"""Rewards: whatever gives responses numbers, on one interface, to be evaluated, combined, and to label data with."""

from boresight.rewards.base import FunctionReward, Reward, label, scored
from boresight.rewards.combine import Constrained, Ensemble, LogSigmoid, Minimum, Sum
from boresight.rewards.load import load_reward
from boresight.rewards.models import ImplicitReward, ModelReward

__all__ = [
    "Constrained",
    "Ensemble",
    "FunctionReward",
    "ImplicitReward",
    "LogSigmoid",
    "Minimum",
    "ModelReward",
    "Reward",
    "Sum",
    "label",
    "load_reward",
    "scored",
]
