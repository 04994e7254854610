from __future__ import annotations

from math import log

from torch import Tensor, ones_like
from torch.nn.functional import logsigmoid

from boresight.objectives import ListLogProbs, objective
from boresight.objectives._check import not_negative, positive


@objective(
    "mapl",
    needs=("reference", "grades"),
    lr=5e-7,
    lr_source="that of dpo (Tunstall et al. 2023, sec. 4.1); the authors' was not found",
    sources={
        "beta": "that of dpo",
        "inter": "1, the plain sum of the parts; the authors' value was not found",
    },
    paper="Sun et al. 2025 (MAPL, 2505.12845); the inter-sample loss as in the catalogue, its equation was not found",
    at_zero=lambda: log(2),
)
def mapl(lists: ListLogProbs, *, beta: float = 0.1, inter: float = 1.0) -> Tensor:
    """Multi-level aware preference learning: pairs of responses, pairs of prompts, and pairs of margins.

    -log sigmoid(beta * (sum of g over the responses of the highest grade - sum of g over the others)), where g = log p
    - log ref in nats, summed over response tokens, each behind its own prompt. What that is depends on the list:

    - of two responses to one prompt: `dpo`;
    - intra-sample, of one response behind two prompts, the better grade where it fits the prompt better:
      -log sigmoid(beta * (g(x+, y) - g(x-, y))), the response-conditioned Bradley-Terry model;
    - inter-sample, of four: the margin of pair a is to exceed that of pair b, so that a's better response and b's
      worse one have the higher grade: -log sigmoid(beta * ([g_w - g_l]_a - [g_w - g_l]_b)), times `inter`.

    A response that does not answer the example's own prompt names its own (`prompt_text` of a response in rows of the
    format "example"). Every list of more than two counts as inter-sample; give each grade to half of them, or the sums
    are of different numbers of responses.

    Returns the loss of each list, shape (lists,). Raises ValueError if beta <= 0 or inter < 0.
    """
    positive(beta=beta)
    not_negative(inter=inter)
    gains, grades = lists.gains(), lists.grades
    top = grades == lists.max(grades)[lists.list_of]
    margin = lists.sum(gains.where(top, -gains))
    weight = ones_like(margin).masked_fill(lists.sizes() > 2, inter)
    return -weight * logsigmoid(beta * margin)
