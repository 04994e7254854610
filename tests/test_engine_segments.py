"""Attention over packed rows against a dense float64 softmax whose (N, N) mask is built from the definition."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from boresight.engine import segments
from boresight.engine.layout import Group
from boresight.engine.segments import Blocks, CannotPack, Laid, _attention, _Segments, attend, register

steady = settings(max_examples=60)

GROUPS = (Group(0, 5, (3, 1, 4)), Group(13, 7, ()), Group(20, 1, (1,)), Group(22, 0, (3, 2, 4)), Group(31, 3, (2, 2)))
LENGTH = 38
"""A common part with three branches, one sequence alone, a pair, sequences that have nothing in common, two."""


def visible(groups: tuple[Group, ...], window: int | None = None) -> Tensor:
    """(N, N) bool: row sees column. A token sees its own branch up to itself and the common part of its group."""
    kinds: list[tuple[int, int, int]] = []  # of each token: its group, its branch (-1: common), its position
    for g, (_, common, branches) in enumerate(groups):
        kinds += [(g, -1, t) for t in range(common)]
        for b, length in enumerate(branches):
            kinds += [(g, b, common + t) for t in range(length)]
    mask = torch.zeros(len(kinds), len(kinds), dtype=torch.bool)
    for i, (group, branch, at) in enumerate(kinds):
        for j, (other, its, to) in enumerate(kinds):
            if group == other and its in (-1, branch) and to <= at and (window is None or at - to < window):
                mask[i, j] = True
    return mask


def dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scale: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """(1, H, N, D), (1, G, N, D), (1, G, N, E) -> (1, N, H, E), head by head with all N x N scores."""
    _, heads, length, _ = query.shape
    each = heads // key.shape[1]
    out = []
    for h in range(heads):
        scores = query[0, h] @ key[0, h // each].T * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        scores = torch.where(mask, scores, -torch.inf)
        if sinks is not None:
            scores = torch.cat([scores, sinks[h].expand(length, 1)], 1)
        out.append(torch.softmax(scores, 1)[:, :length] @ value[0, h // each])
    return torch.stack(out, 1).unsqueeze(0)


def tensors(
    length: int,
    heads: int = 4,
    kv: int = 2,
    width: int = 8,
    wide: int | None = None,
    dtype=torch.float64,
    seed: int = 0,
) -> list[Tensor]:
    """Leaves, laid out (1, N, heads, width) as models lay theirs, transposed to (1, heads, N, width)."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(heads, width), (kv, width), (kv, wide or width)]
    made = [torch.randn(1, length, h, d, generator=generator, dtype=torch.float64) * 1.5 for h, d in shapes]
    return [t.to(dtype).transpose(1, 2).requires_grad_() for t in made]


def with_gradients(out: Tensor, leaves: list[Tensor], seed: int = 1) -> list[Tensor]:
    """Values, and the gradients of a random weighting of them in all leaves."""
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    grads = torch.autograd.grad((out * weights.to(out.dtype)).sum(), leaves, allow_unused=True)
    return [out.detach(), *(torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True))]


def assert_close(ours: list[Tensor], truth: list[Tensor], tolerance: float) -> None:
    """Each within `tolerance` of the largest of the truth."""
    for a, b in zip(ours, truth, strict=True):
        assert a.shape == b.shape
        assert (a.double() - b.double()).abs().max() <= tolerance * max(1.0, float(b.abs().max()))


def fast(leaves: list[Tensor], groups, scale: float) -> Tensor:
    return _Segments.apply(*leaves, Blocks(groups), scale)


def slow(leaves: list[Tensor], groups, scale: float) -> Tensor:
    return attend(*leaves, groups, scale=scale)


both = pytest.mark.parametrize("by", [fast, slow])


@both
@pytest.mark.parametrize("heads", [(1, 1), (4, 1), (4, 2), (4, 4), (6, 3), (7, 7)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_values_and_gradients_equal_a_dense_softmax(by, heads, dtype, tolerance):
    exact = tensors(LENGTH, *heads)
    truth = with_gradients(dense(*exact, visible(GROUPS), 0.3), exact)
    leaves = [x.detach().to(dtype).requires_grad_() for x in exact]
    assert_close(with_gradients(by(leaves, GROUPS, 0.3), leaves), truth, tolerance)


@both
@pytest.mark.parametrize("width", [1, 3, 8, 20, 64, 80, 128])
def test_any_width_of_a_head(by, width):
    leaves = tensors(LENGTH, width=width)
    truth = with_gradients(dense(*leaves, visible(GROUPS), width**-0.5), leaves)
    assert_close(with_gradients(by(leaves, GROUPS, width**-0.5), leaves), truth, 1e-10)


@both
@pytest.mark.parametrize("kv", [1, 2, 4])
def test_bfloat16_is_no_further_from_float64_than_a_dense_softmax_in_bfloat16(by, kv):
    further, truly = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    for seed in range(8):
        exact = [x.detach().bfloat16().double().requires_grad_() for x in tensors(LENGTH, 4, kv, 16, seed=seed)]
        truth = with_gradients(dense(*exact, visible(GROUPS), 0.25), exact)
        leaves = [x.detach().bfloat16().requires_grad_() for x in exact]
        half = with_gradients(dense(*leaves, visible(GROUPS), 0.25), leaves)
        ours = with_gradients(by(leaves, GROUPS, 0.25), leaves)
        assert all(x.dtype == torch.bfloat16 for x in ours)
        further += torch.stack([(a.double() - b).square().sum() for a, b in zip(ours, truth, strict=True)])
        truly += torch.stack([(a.double() - b).square().sum() for a, b in zip(half, truth, strict=True)])
    assert (further.sqrt() <= 1.1 * truly.sqrt()).all()


@st.composite
def layouts(draw) -> tuple[Group, ...]:
    groups, start = [], 0
    for _ in range(draw(st.integers(1, 4))):
        common = draw(st.integers(0, 9))
        branches = tuple(draw(st.lists(st.integers(1, 7), min_size=0 if common else 1, max_size=4)))
        groups.append(Group(start, common, branches))
        start += common + sum(branches)
    return tuple(groups)


@steady
@given(layouts(), st.sampled_from([(2, 1), (3, 3), (4, 2)]), st.integers(0, 2**16))
def test_any_layout(groups, heads, seed):
    length = visible(groups).shape[0]
    leaves = tensors(length, *heads, width=4, seed=seed)
    truth = with_gradients(dense(*leaves, visible(groups), 0.5), leaves)
    for by in (fast, slow):
        assert_close(with_gradients(by(leaves, groups, 0.5), leaves), truth, 1e-10)


@steady
@given(
    layouts(),
    st.sampled_from([None, 1, 2, 3, 6, 100]),
    st.sampled_from([None, 0.7, 30.0]),
    st.booleans(),
    st.sampled_from([(4, 6), (6, 4), (4, 4)]),
)
def test_windows_soft_caps_sinks_and_values_of_another_width(groups, window, softcap, sunk, widths):
    mask = visible(groups, window)
    leaves = tensors(mask.shape[0], 4, 2, *widths)
    sinks = torch.linspace(-2, 3, 4, dtype=torch.float64).requires_grad_() if sunk else None
    every = [*leaves, *([sinks] if sunk else [])]
    truth = with_gradients(dense(*leaves, mask, 0.5, softcap, sinks), every)
    ours = attend(*leaves, groups, scale=0.5, window=window, softcap=softcap, sinks=sinks)
    # Models that cap their scores take the softmax in fp32, in fp64 too.
    assert_close(with_gradients(ours, every), truth, 1e-10 if softcap is None else 1e-6)


def test_scores_far_apart_stay_finite():
    """A branch that looks only at itself, and one that looks only at what is common, by hundreds of nats."""
    groups = (Group(0, 4, (3, 3, 3)),)
    leaves = [x.detach() for x in tensors(13)]
    leaves[1][:, :, :4] *= 100
    leaves[1][:, :, 7:10] *= 200
    leaves = [x.requires_grad_() for x in leaves]
    truth = with_gradients(dense(*leaves, visible(groups), 1.0), leaves)
    ours = with_gradients(fast(leaves, groups, 1.0), leaves)
    assert all(bool(torch.isfinite(x).all()) for x in ours)
    assert_close(ours, truth, 1e-10)


@both
def test_what_is_in_other_branches_and_groups_is_not_seen(by):
    """Changing one branch changes nothing outside it; changing the common part changes nothing outside its group."""
    leaves = [x.detach() for x in tensors(LENGTH)]
    before = by(leaves, GROUPS, 0.3)
    for part, reach in [(slice(5, 8), slice(5, 8)), (slice(9, 13), slice(9, 13)), (slice(31, 34), slice(31, 38))]:
        changed = [x.clone() for x in leaves]
        for x in changed[1:]:
            x[:, :, part] += 1.0
        moved = (by(changed, GROUPS, 0.3) != before).flatten(2).any(2)[0]
        assert bool(moved[reach].any())
        moved[reach] = False
        assert not bool(moved.any())


@both
def test_an_empty_row(by):
    leaves = tensors(0)
    assert by(leaves, (), 0.5).shape == (1, 0, 4, 8)


@both
def test_it_is_laid_out_as_models_expect_it(by):
    out = by(tensors(LENGTH), GROUPS, 0.5)
    assert out.view(1, LENGTH, -1).shape == (1, LENGTH, 32)


@both
@pytest.mark.parametrize("which", [0, 1, 2])
def test_gradients_in_one_tensor_only(by, which):
    leaves = [x.detach() for x in tensors(LENGTH)]
    leaves[which].requires_grad_()
    (ours,) = torch.autograd.grad(by(leaves, GROUPS, 0.3).square().sum(), leaves[which])
    (truth,) = torch.autograd.grad(dense(*leaves, visible(GROUPS), 0.3).square().sum(), leaves[which])
    assert_close([ours], [truth], 1e-10)


def test_dropout_keeps_what_is_seen_and_its_mean():
    """Over many draws the mean is that without dropout, and no draw sees another branch."""
    torch.manual_seed(0)
    leaves = [x.detach() for x in tensors(LENGTH)]
    truth = dense(*leaves, visible(GROUPS), 0.3)
    draws = torch.stack([attend(*leaves, GROUPS, scale=0.3, dropout=0.2) for _ in range(400)])
    error = draws.std(0) / 400**0.5
    assert ((draws.mean(0) - truth).abs() <= 6 * error + 1e-12).all()
    torch.testing.assert_close(attend(*leaves, GROUPS, scale=0.3, dropout=0.0), truth, rtol=1e-10, atol=1e-10)


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.most = max(self.most, tensor.numel())
        return out


def test_nothing_grows_with_the_square_of_the_row():
    """4,000 tokens: no tensor larger than the largest of the inputs, forward and backward."""
    groups = tuple(Group(i * 400, 100, (100, 100, 100)) for i in range(10))
    leaves = tensors(4000, 2, 1, 8, dtype=torch.float32)
    with Largest() as seen:
        torch.autograd.grad(fast(leaves, groups, 0.3).sum(), leaves)
    assert seen.most <= 4000 * 2 * 8


def test_with_masks_nothing_is_larger_than_one_branch_against_its_sequence():
    """20 groups of common 20 and branches of 30: the masks of a window are 50 x 50 at most, with two heads."""
    groups = tuple(Group(i * 80, 20, (30, 30)) for i in range(20))
    leaves = tensors(1600, 2, 1, 1, dtype=torch.float32)
    with Largest() as seen:
        torch.autograd.grad(attend(*leaves, groups, scale=0.3, window=7).sum(), leaves)
    assert seen.most <= max(1600 * 2, 2 * 50 * 50)


class Layer(torch.nn.Module):
    """What transformers gives an attention function as its first argument."""

    is_causal = True
    num_key_value_groups = 2


def test_blocks_cover_what_is_visible_once():
    """The fast kernel's blocks are the (N, N) mask, cut into pieces."""
    seen = torch.zeros(LENGTH, LENGTH, dtype=torch.int64)
    blocks = Blocks(GROUPS)
    for part in blocks.first:
        n = part.stop - part.start
        seen[part, part] += torch.ones(n, n, dtype=torch.int64).tril()
    for rest, common, branches in blocks.joined:
        seen[rest, common] += 1
        assert [(b.start, a.stop) for a, b in pairwise(branches)] == [(a.stop, a.stop) for a in branches[:-1]]
        for branch in branches:
            n = branch.stop - branch.start
            seen[branch, branch] += torch.ones(n, n, dtype=torch.int64).tril()
    assert torch.equal(seen, visible(GROUPS).long())


def function(name: str = "sdpa"):
    return _attention(name)


def test_the_layout_travels_on_the_mask():
    register("sdpa")
    leaves = tensors(LENGTH)
    laid = Laid(GROUPS)
    assert laid.longest == 9
    out, weights = function()(Layer(), *leaves, laid.mask(torch.device("cpu")), scaling=0.3)
    assert weights is None
    torch.testing.assert_close(out, dense(*leaves, visible(GROUPS), 0.3), rtol=1e-10, atol=1e-10)
    out, _ = function()(Layer(), *leaves, laid.mask(torch.device("cpu")), sliding_window=4)
    torch.testing.assert_close(out, dense(*leaves, visible(GROUPS, 4), 8**-0.5), rtol=1e-10, atol=1e-10)
    assert laid.windows == [None, 4]


@pytest.mark.parametrize("window", [8, 9, 10, None])
def test_windows_about_the_longest_sequence(window):
    leaves = tensors(LENGTH)
    out, _ = function()(Layer(), *leaves, Laid(GROUPS).mask(torch.device("cpu")), sliding_window=window)
    torch.testing.assert_close(out, dense(*leaves, visible(GROUPS, window), 8**-0.5), rtol=1e-10, atol=1e-10)


def test_without_a_layout_it_is_the_models_own_attention():
    leaves = tensors(6)
    mask = torch.ones(6, 6, dtype=torch.bool).tril()[None, None]
    truth = dense(*leaves, mask[0, 0], 0.3)
    for given_mask in (mask, None):
        torch.testing.assert_close(
            function()(Layer(), *leaves, given_mask, scaling=0.3)[0], truth, rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize(
    "lose", [lambda m: m.clone(), lambda m: m[:, :, :, :LENGTH], lambda m: m.to(torch.float64), lambda m: m & True]
)
def test_a_mask_that_lost_its_layout_on_the_way_raises(lose):
    mask = lose(Laid(GROUPS).mask(torch.device("cpu")))
    with pytest.raises(CannotPack, match="hand down"):
        function()(Layer(), *tensors(LENGTH), mask)


def refused(match: str, leaves: list[Tensor], module: torch.nn.Module | None = None, **options) -> None:
    with pytest.raises(CannotPack, match=match):
        function()(module or Layer(), *leaves, Laid(GROUPS).mask(torch.device("cpu")), **options)


def test_attention_of_another_kind_raises():
    leaves = tensors(LENGTH)
    refused("bias", leaves, position_bias=torch.zeros(1))
    refused("not causal", leaves, is_causal=False)
    other = Layer()
    other.is_causal = False
    refused("not causal", leaves, other)
    refused("something else", [leaves[0], *tensors(7)[1:]])
    # Sparse attention, which picks keys by number: DeepSeek-V3.2, GLM, MiniMax.
    refused("indices", leaves, indices=torch.zeros(1, LENGTH, 3, dtype=torch.int64))
    refused("block_indices", leaves, block_indices=torch.zeros(1, LENGTH, 3, dtype=torch.int64))
    options = {"position_ids": torch.zeros(1, LENGTH), "indices": None, "use_cache": False}
    function()(Layer(), *leaves, Laid(GROUPS).mask(torch.device("cpu")), **options)


def test_under_autocast_the_fast_kernel_is_used_in_half_precision(monkeypatch):
    """Models turn queries and keys back to fp32 with their positions; autocast makes them alike for torch's own."""
    leaves = [x.detach().float().requires_grad_() for x in tensors(LENGTH)]
    leaves[2] = leaves[2].detach().bfloat16().requires_grad_()
    monkeypatch.setattr(segments, "attend", None)
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = function()(Layer(), *leaves, Laid(GROUPS).mask(torch.device("cpu")))
    assert out.dtype == torch.bfloat16
    exact = [x.detach().bfloat16().double().requires_grad_() for x in leaves]
    truth = with_gradients(dense(*exact, visible(GROUPS), 8**-0.5), exact)
    assert_close(with_gradients(out, leaves), truth, 2e-2)
