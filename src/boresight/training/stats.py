"""Intervals, under the name by which the rooms from training upwards know them; see `boresight.stats`."""

from boresight.stats import Interval, mean, paired_difference, proportion, win_rate

__all__ = ["Interval", "mean", "paired_difference", "proportion", "win_rate"]
