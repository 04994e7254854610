"""Rows dealt to processes and micro-batches by length: every row once, within the budget, balanced, the same result."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from boresight.data.render import Renderer
from boresight.objectives import objectives
from boresight.training.batches import row_options
from boresight.training.placement import Sizes, place

LENGTHS = st.lists(st.tuples(st.integers(1, 400), st.integers(0, 100)), min_size=1, max_size=40)


def padded(rows: int, tokens: int, longest: int) -> int:
    return rows * 2 * longest


def packed(rows: int, tokens: int, longest: int) -> int:
    return tokens


COSTS = {"padded": padded, "packed": packed}


@given(LENGTHS, st.sampled_from(list(COSTS)), st.integers(1, 5), st.integers(1, 3000), st.none() | st.integers(1, 9),
       st.booleans())  # fmt: skip
def test_every_row_once_within_the_budget(lengths, kind, world, budget, most, equal):
    longest = [a for a, _ in lengths]
    tokens = [a + b for a, b in lengths]
    cost = COSTS[kind]
    words = {"cost": cost, "budget": budget, "rows": most, "world": world, "equal": equal}
    dealt = place(tokens, longest, **words)
    assert dealt == place(list(tokens), list(longest), **words)
    assert len(dealt) == world
    parts = [part for mine in dealt for part in mine]
    assert sorted(i for part in parts for i, live in part if live) == list(range(len(tokens)))
    for part in parts:
        rows = [i for i, _ in part]
        assert len(rows) <= (most or len(rows))
        fits = cost(len(rows), sum(tokens[i] for i in rows), max(longest[i] for i in rows)) <= budget
        assert fits or len(rows) == 1
        # Those that fill up are alone, so that they never share a pass with rows that count.
        assert all(live for _, live in part) or len(part) == 1
    alone = [cost(1, t, n) for t, n in zip(tokens, longest, strict=True)]
    load = [sum(alone[i] for part in mine for i, live in part if live) for mine in dealt]
    assert max(load) - min(load) <= max(alone)
    counts = [len(mine) for mine in dealt]
    assert min(counts) >= 1
    if equal:
        assert len(set(counts)) == 1
    elif len(tokens) >= world:
        assert all(live for part in parts for _, live in part)


@given(LENGTHS, st.integers(1, 3000))
def test_no_cut_in_order_of_length_needs_fewer_passes_or_has_a_smaller_largest(lengths, budget):
    """Against all cuts, tried one by one, of up to seven rows; padded passes."""
    longest = [n for n, _ in lengths[:7]]
    found = [[i for i, _ in part] for part in place(longest, longest, cost=padded, budget=budget)[0]]
    order = sorted(range(len(longest)), key=lambda i: (-longest[i], i))
    best = None
    for bits in range(1 << (len(order) - 1)):
        parts = [[order[0]]]
        for k, i in enumerate(order[1:]):
            if bits >> k & 1:
                parts.append([i])
            else:
                parts[-1].append(i)
        costs = [padded(len(p), 0, longest[p[0]]) for p in parts]
        if all(c <= budget or len(p) == 1 for c, p in zip(costs, parts, strict=True)):
            best = min(best or (99, 0), (len(parts), max(costs)))
    assert best == (len(found), max(padded(len(p), 0, longest[p[0]]) for p in found))
    assert [i for part in found for i in part] == order


def test_known_answers():
    tokens = [5, 100, 40, 60, 30]
    assert place(tokens, tokens, cost=packed, budget=1000) == [
        [[(1, True), (3, True), (2, True), (4, True), (0, True)]]
    ]
    dealt = place(tokens, tokens, cost=packed, budget=100, world=2)
    # 100 | 60 40, then 30 to the first, as both have 100, and 5 to the second; 60 40 5 is cut where it is smallest.
    assert dealt == [[[(1, True)], [(4, True)]], [[(3, True)], [(2, True), (0, True)]]]
    one = place([7], [7], cost=packed, budget=3, world=2, equal=True)
    assert one == [[[(0, True)]], [[(0, False)]]]  # longer than the budget; and nothing is left for the other process


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of each kind, from texts of very uneven lengths."""
    import boresight.data.cache as cache
    from boresight.data.read import read
    from boresight.data.rows import make_rows
    from boresight.lab.tiny import byte_tokenizer

    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(0)

    def text(k: int) -> str:
        return " ".join(["word"] * int(rng.integers(1, 2 + k % 7 * 9)))

    data = [{"prompt": f"{i} {text(i)}", "chosen": text(i + 3), "rejected": f"{text(i)} {i}"} for i in range(300)]
    (folder / "prefs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BORESIGHT_CACHE", str(folder / "cache"))
        assert cache.root().is_relative_to(folder)
        examples, renderer = read(folder / "prefs.jsonl"), Renderer(byte_tokenizer(["word"] * 8, 280))
        known = objectives()
        yield {name: make_rows(examples, renderer, **row_options(known[name])) for name in ("dpo", "sft", "kto")}


@pytest.mark.parametrize("method", ["dpo", "sft", "kto"])
def test_sizes_are_those_of_the_rows(rows, method):
    table, known = rows[method], objectives()[method]
    sizes = Sizes.of(table, known)
    assert len(sizes) == len(table)
    for i, row in enumerate(table):
        lengths = [len(s) for s in row.sequences]
        assert sizes.longest[i] == max(lengths)
        if method == "dpo":
            prompt = min(int(np.flatnonzero(s.mask)[0]) for s in row.sequences)
            assert sizes.packed[i] == sum(lengths)
            assert sizes.shared[i] == prompt + sum(n - prompt for n in lengths)
            assert sizes.tokens("padded")[i] == 2 * max(lengths)
        else:
            assert {int(a[i]) for a in (sizes.packed, sizes.shared, sizes.tokens("padded"))} == {max(lengths)}
        assert sizes.responses[i] == sum(s.response_length for s in row.sequences[: 2 if method == "dpo" else 1])
    some = [3, 299, 17]
    assert sizes.normaliser(some, "example") == 3
    assert sizes.normaliser(some, "token") == sum(sizes.responses[some])
    for layout in ("shared", "packed", "padded"):
        largest = sorted(sizes.tokens(layout).tolist())[-4:]
        assert sizes.most(layout, 4, 10**9) == sum(largest)
        assert sizes.most(layout, 4, largest[-1] + 1) == largest[-1] + 1
        assert sizes.most(layout, 4, 1) == largest[-1]


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
def test_the_gradient_is_the_same_in_any_placement(layout):
    """Rows of 2 to 90 tokens, in float64, from budgets of one row to all, on one process and dealt to three."""
    from boresight.engine.padded import TokenLogProbs, logprobs

    model = tiny.tiny("llama", dtype=torch.float64)
    module = TokenLogProbs(model, layout=layout)
    lengths = [(1, 1), (60, 30), (2, 9), (40, 1), (3, 50), (9, 9), (1, 70)]
    tokens = tiny.sequences(lengths)
    sizes = [len(t) for t in tokens]

    def gradient(**words) -> torch.Tensor:
        module.zero_grad()
        for part in (part for mine in place(sizes, sizes, cost=packed, **words) for part in mine):
            live = torch.tensor([float(counts) for _, counts in part], dtype=torch.float64)
            got = logprobs(module, [tokens[i] for i, _ in part], 0)
            (torch.sigmoid(got.sum() / 100) * live).sum().div(len(tokens)).backward()
        return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])

    whole = gradient(budget=10**6)
    assert float(whole.abs().max()) > 1e-6
    three = {"budget": 150, "world": 3}
    for words in ({"budget": 1}, {"budget": 100}, three, three | {"equal": True}, {"budget": 10**6, "rows": 2}):
        apart = gradient(**words) - whole
        assert float(apart.norm() / whole.norm()) < 1e-7  # RMSNorm and RoPE of the model are in fp32
