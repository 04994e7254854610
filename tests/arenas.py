"""Votes made up for tests: strengths, places, lengths and judges that are known."""

import numpy as np

from boresight.data.example import Example, Pair, Response
from boresight.judging.votes import STYLE, Votes, collect


def votes(results, *, prompts=None, judges=None, name="votes"):
    """Votes of ("a", "b", 1 | 0 | 0.5), each on a prompt of its own unless told."""
    return collect(examples(results, prompts=prompts, judges=judges), name)


def examples(results, *, prompts=None, judges=None):
    made = []
    for k, (a, b, outcome) in enumerate(results):
        prompt = f"prompt {k if prompts is None else prompts[k]}"
        both = (Response(f"{a} on {prompt}", system=a), Response(f"{b} on {prompt}", system=b))
        judge = None if judges is None else judges[k]
        pair = Pair(int(outcome == 0), int(outcome != 0), tie=outcome == 0.5, annotator=judge)
        made.append(Example(prompt, both, pairs=(pair,)))
    return made


def drawn(strengths, n, seed=0, *, prompts=50, place=0.0, length=0.0, spread=0.0, ties=0.0, judges=None):
    """n votes between systems "s0", "s1", ... of these strengths, on prompts that move each by `spread` logits.

    place: logits for the first. length: logits for an answer that is longer by one typical difference. ties: the share
    that a tie takes at random. judges: {name: chance of voting by a coin}.
    """
    random = np.random.default_rng(seed)
    strengths = np.asarray(strengths, float)
    size = len(strengths)
    moved = random.normal(0, 1, (prompts, size)) * spread
    long = random.integers(20, 400, (prompts, size))
    first = random.integers(0, size, n)
    second = (first + random.integers(1, size, n)) % size
    prompt = np.arange(n) % prompts
    x, y = long[prompt, first], long[prompt, second]
    away = (x - y) / (x + y)
    logit = strengths[first] - strengths[second] + moved[prompt, first] - moved[prompt, second] + place
    logit = logit + length * away / np.sqrt((away**2).mean())
    names = list(judges or {})
    by = random.integers(0, len(names), n) if names else None
    coin = np.array([judges[name] for name in names])[by] if names else np.zeros(n)
    chance = np.where(random.random(n) < coin, 0.5, 1 / (1 + np.exp(-logit)))
    outcome = (random.random(n) < chance).astype(float)
    outcome[random.random(n) < ties] = 0.5
    made = []
    for k in range(n):
        texts = ["x" * int(size) for size in (x[k], y[k])]
        both = tuple(Response(t, system=f"s{s}") for t, s in zip(texts, (first[k], second[k]), strict=True))
        win = int(outcome[k] == 0)
        pair = Pair(win, 1 - win, tie=bool(outcome[k] == 0.5), annotator=names[by[k]] if names else None)
        made.append(Example(f"prompt {prompt[k]}", both, pairs=(pair,)))
    return made


def table(strengths, n, seed=0, *, prompts=50, spread=0.0):
    """As `drawn`, but the columns alone: systems in order, no texts, no judges."""
    random = np.random.default_rng(seed)
    strengths = np.asarray(strengths, float)
    size = len(strengths)
    moved = random.normal(0, 1, (prompts, size)) * spread + strengths
    first = random.integers(0, size, n)
    second = (first + random.integers(1, size, n)) % size
    prompt = np.arange(n) % prompts
    chance = 1 / (1 + np.exp(moved[prompt, second] - moved[prompt, first]))
    none, zero = np.full(n, -1), np.zeros((n, len(STYLE)))
    outcome = (random.random(n) < chance).astype(float)
    names = tuple(f"s{k}" for k in range(size))
    keys = np.arange(max(n, prompts))
    return Votes(
        "table", names, first, second, outcome, np.ones(n), prompt, np.arange(n), np.zeros(n, bool), none, none, zero,
        keys, keys,
    )  # fmt: skip


def centre(strengths, spread):
    """The strengths that endless votes of `table` have: of shares that are means over prompts."""
    strengths = np.asarray(strengths, float)
    first, second = np.nonzero(~np.eye(len(strengths), dtype=bool))
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    away = strengths[first] - strengths[second]
    share = (1 / (1 + np.exp(-away[:, None] - nodes * spread * np.sqrt(2)))) @ weights / weights.sum()
    return newton(first, second, share, len(strengths))[0]


def newton(first, second, outcome, size, extra=None, prior=0.0, sd=5.0, weight=None, level=1.0):
    """Bradley-Terry by Newton's steps on a dense matrix, written for tests: strengths of mean 0, slopes."""
    n = len(outcome)
    x = np.zeros((n, size))
    x[np.arange(n), first] += 1
    x[np.arange(n), second] -= 1
    k = 0 if extra is None else extra.shape[1]
    x = x if extra is None else np.concatenate([x, extra], 1)
    w = np.ones(n) if weight is None else weight
    at = np.zeros(size + k)
    fixed = np.zeros((size + k, size + k))
    fixed[:size, :size] = level
    for _ in range(200):
        p = 1 / (1 + np.exp(-x @ at))
        own = 1 / (1 + np.exp(-at[:size]))
        g = x.T @ (w * (outcome - p))
        g[:size] += prior * (0.5 - own)
        g[size:] -= at[size:] / sd**2
        h = x.T @ (x * (w * p * (1 - p))[:, None]) + fixed
        h[np.arange(size), np.arange(size)] += prior * own * (1 - own)
        h[np.arange(size, size + k), np.arange(size, size + k)] += sd**-2
        step = np.linalg.solve(h, g - fixed @ at)
        at = at + step * min(1, 3 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-12:
            break
    at[:size] -= at[:size].mean()
    return at[:size], at[size:]
