"""What objectives on graded lists share: the weight of a couple in a ranking."""

from __future__ import annotations

from torch import Tensor

from boresight.objectives._lists import ListLogProbs


def dcg_weights(lists: ListLogProbs, order: Tensor) -> Tensor:
    """What exchanging the two of each couple of `lists.better()` does to DCG, (couples,), without gradient.

    |G_i - G_j| * |1/D(t_i) - 1/D(t_j)|, with G = 2^grade - 1, D(t) = log(1 + t), and t the place of the response when
    its list is sorted by falling `order`, (responses,), equal ones in the order given.
    """
    better, worse = lists.better()
    dtype = lists.policy.values.dtype
    gain = 2 ** lists.grades.to(dtype)
    discount = 1 / (1 + lists.rank(order.detach()).to(dtype)).log()
    return (gain[better] - gain[worse]) * (discount[better] - discount[worse]).abs()
