"""Closed forms, identities, limits, and the pitfalls of other libraries, method by method."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from boresight.objectives import (
    LogProbs,
    PairLogProbs,
    PairScores,
    PairSide,
    ResponseLogProbs,
    bt_reward,
    dpo,
    ipo,
    ipo_mean,
    kto,
    orpo,
    rdpo_robust,
    rso_hinge,
    sft,
    simpo,
    slic_hinge,
)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def margins(*values: float) -> PairLogProbs:
    """Pairs of one-token responses with these margins over the reference."""
    m = numbers(*values)
    return PairLogProbs.from_sums(m - 50, m.new_full(m.shape, -50), m.new_full(m.shape, -7), m.new_full(m.shape, -7))


def random_pairs(seed: int = 0, count: int = 6, longest: int = 8, length: int | None = None) -> PairLogProbs:
    rng = torch.Generator().manual_seed(seed)

    def side() -> LogProbs:
        lengths = torch.randint(1, longest + 1, (count,), generator=rng).tolist()
        return LogProbs.from_sequences(
            [-3 * torch.rand(length or n, generator=rng, dtype=torch.float64) - 0.01 for n in lengths]
        )

    def again(like: LogProbs) -> LogProbs:
        noise = torch.randn(like.values.shape, generator=rng, dtype=torch.float64)
        return LogProbs((like.values + 0.3 * noise).clamp(max=-0.01), like.owner, like.count)

    policy = PairSide(side(), side())
    return PairLogProbs(policy, PairSide(again(policy.chosen), again(policy.rejected)))


def labelled(rewards: Tensor, desirable: list[bool], kl: float = 0.0) -> ResponseLogProbs:
    reference = torch.full_like(rewards, -20)
    return ResponseLogProbs(
        LogProbs.from_sums(reference + rewards),
        LogProbs.from_sums(reference),
        desirable=torch.tensor(desirable),
        mismatched_kl=torch.tensor(kl, dtype=rewards.dtype),
    )


def close(a: Tensor, b: Tensor | list[float], tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b if isinstance(b, Tensor) else numbers(*b), rtol=tolerance, atol=tolerance)


# Values that can be worked out by hand


def test_dpo_at_margins_of_odds_three_to_one() -> None:
    # beta * h = log 3 makes the preference probability 3/4
    h = 10 * math.log(3)
    close(dpo(margins(h, -h, 0), beta=0.1), [math.log(4 / 3), math.log(4), math.log(2)])


def test_label_smoothing_by_hand() -> None:
    h = 10 * math.log(3)
    expected = 0.8 * math.log(4 / 3) + 0.2 * math.log(4)
    close(dpo(margins(h), beta=0.1, label_smoothing=0.2), [expected])


def test_ipo_is_zero_at_its_target_and_symmetric_around_it() -> None:
    close(ipo(margins(5, 6, 4, 0), beta=0.1), [0, 1, 1, 25])


def test_rso_hinge_is_zero_from_one_over_beta_on() -> None:
    close(rso_hinge(margins(20, 30, 10, 0, -20), beta=0.05), [0, 0, 0.5, 1, 2])


def test_slic_hinge_by_hand() -> None:
    pairs = PairLogProbs.from_sums(numbers(-10, -12), numbers(-10.5, -20))
    close(slic_hinge(pairs, delta=1, lam=0), [0.5, 0])
    close(slic_hinge(pairs, delta=1, lam=0.1), [1.5, 1.2])
    close(slic_hinge(PairLogProbs.from_sums(numbers(-4), numbers(-4)), delta=1, lam=0.1), [1.4])  # at zero margin


def test_simpo_by_hand() -> None:
    # mean log-probs -1 and -2, gamma = 2 * 0.5: sigmoid(2 * (1 - 0.5)) = sigmoid(1)
    pairs = PairLogProbs.from_sums(
        numbers(-3), numbers(-10), chosen_lengths=torch.tensor([3]), rejected_lengths=torch.tensor([5])
    )
    close(simpo(pairs, beta=2, gamma_beta_ratio=0.5), [math.log(1 + math.exp(-1))])


def test_orpo_by_hand() -> None:
    # mean probabilities 3/4 and 1/2: odds 3 and 1, odds ratio 3
    pairs = PairLogProbs.from_sums(numbers(math.log(0.75)), numbers(math.log(0.5)))
    close(orpo(pairs, lam=0.5), [math.log(4 / 3) + 0.5 * math.log(4 / 3)])


def test_kto_by_hand() -> None:
    # reward log 3 / beta above the reference point: 1 - 3/4 if desirable, 3/4 if not
    r = 10 * math.log(3)
    batch = labelled(numbers(r + 2, r + 2), [True, False], kl=2.0)
    close(kto(batch, beta=0.1, desirable_weight=2, undesirable_weight=3), [2 / 4, 3 * 3 / 4])


def test_kto_at_zero_margin_is_half_the_weight() -> None:
    close(kto(labelled(numbers(0, 0), [True, False]), desirable_weight=1.5, undesirable_weight=0.5), [0.75, 0.25])


def test_bt_reward_by_hand() -> None:
    scores = PairScores(numbers(math.log(3), 0), numbers(0, 0))
    close(bt_reward(scores), [math.log(4 / 3), math.log(2)])
    close(bt_reward(scores, centring=0.01), [math.log(4 / 3) + 0.01 * math.log(3) ** 2, math.log(2)])


def test_sft_is_the_cross_entropy_of_torch() -> None:
    logits, targets = torch.randn(7, 11, dtype=torch.float64), torch.arange(7)
    log_probs = logits.log_softmax(-1)[torch.arange(7), targets]
    losses = sft(ResponseLogProbs(LogProbs.from_sequences([log_probs[:3], log_probs[3:]])))
    close(losses.sum() / 7, torch.nn.functional.cross_entropy(logits, targets))


# Identities between methods


def test_robust_dpo_without_noise_is_dpo() -> None:
    close(rdpo_robust(random_pairs(), eps=0), dpo(random_pairs()))


@pytest.mark.parametrize("eps", [0.1, 0.3, 0.45])
def test_robust_dpo_is_unbiased_under_flips(eps: float) -> None:
    """Averaged over a flip of rate eps, the loss is DPO's on the true label: what the paper builds it for."""
    h = numbers(-30, -1, 0, 2, 40).tolist()
    kept = rdpo_robust(margins(*h), eps=eps)
    flipped = rdpo_robust(margins(*[-x for x in h]), eps=eps)
    close((1 - eps) * kept + eps * flipped, dpo(margins(*h)), 1e-10)


def test_label_smoothing_is_linear_and_mixes_the_two_labels() -> None:
    h = numbers(-30, -1, 0, 2, 40).tolist()
    right, wrong = dpo(margins(*h)), dpo(margins(*[-x for x in h]))
    for s in (0.0, 0.1, 0.4):
        close(dpo(margins(*h), label_smoothing=s), (1 - s) * right + s * wrong)


def test_label_smoothing_and_robust_dpo_pull_apart() -> None:
    """cDPO adds the flipped label's loss, rDPO subtracts it; in sum they cancel: (rDPO * (1 - 2 eps) + cDPO) / 2."""
    pairs, eps = random_pairs(), 0.2
    both = (rdpo_robust(pairs, eps=eps) * (1 - 2 * eps) + dpo(pairs, label_smoothing=eps)) / 2
    close(both, (1 - eps) * dpo(pairs))


def test_smoothed_dpo_is_least_where_the_docstring_says() -> None:
    s, beta = 0.2, 0.1
    target = math.log((1 - s) / s) / beta
    h = torch.tensor([target], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    loss = dpo(PairLogProbs.from_sums(h, zero, zero, zero), beta=beta, label_smoothing=s)
    assert torch.autograd.grad(loss.sum(), h)[0].item() == pytest.approx(0, abs=1e-15)


def test_dpo_equals_bradley_terry_on_implicit_rewards() -> None:
    pairs, beta = random_pairs(), 0.3
    chosen = beta * (pairs.policy.chosen.sum() - pairs.reference.chosen.sum())
    rejected = beta * (pairs.policy.rejected.sum() - pairs.reference.rejected.sum())
    close(dpo(pairs, beta=beta), bt_reward(PairScores(chosen, rejected)))


def test_simpo_on_one_token_without_target_is_dpo_without_reference() -> None:
    pairs = random_pairs(length=1)
    flat = PairLogProbs(pairs.policy, PairSide(*[LogProbs.from_sums(torch.zeros(6, dtype=torch.float64))] * 2))
    close(simpo(pairs, beta=0.7, gamma_beta_ratio=0), dpo(flat, beta=0.7))


def test_kto_of_a_response_and_its_opposite_label_sum_to_the_weight() -> None:
    rewards = numbers(-9, 0.5, 3)
    both = kto(labelled(rewards, [True] * 3, 0.4)) + kto(labelled(rewards, [False] * 3, 0.4))
    close(both, [1, 1, 1])


def test_slic_and_rso_are_one_hinge_when_the_reference_is_flat() -> None:
    pairs = random_pairs()
    flat = PairLogProbs(pairs.policy, PairSide(*[LogProbs.from_sums(torch.zeros(6, dtype=torch.float64))] * 2))
    close(slic_hinge(pairs, delta=20, lam=0), 20 * rso_hinge(flat, beta=1 / 20))


def test_a_constant_on_all_scores_changes_nothing_without_centring() -> None:
    a, b = numbers(1, -2), numbers(0.5, 3)
    close(bt_reward(PairScores(a + 10, b + 10)), bt_reward(PairScores(a, b)), 1e-9)
    centred = bt_reward(PairScores(a + 10, b + 10), centring=0.01) - bt_reward(PairScores(a, b), centring=0.01)
    close(centred, 0.01 * ((a + b + 20) ** 2 - (a + b) ** 2), 1e-9)


# Limits


def test_small_beta_straightens_the_losses() -> None:
    """(log 2 - DPO) / beta -> h / 2, and beta * (IPO - 1 / (4 beta^2)) -> -h, as beta -> 0."""
    h, beta = numbers(-3, 0.5, 4), 1e-6
    close((math.log(2) - dpo(margins(*h.tolist()), beta=beta)) / beta, h / 2, 1e-4)
    close(beta * (ipo(margins(*h.tolist()), beta=beta) - 1 / (4 * beta**2)), -h, 1e-3)


def test_large_margins_are_linear_on_one_side_and_nothing_on_the_other() -> None:
    close(dpo(margins(1e4, -1e4), beta=0.1), [0, 1000])
    close(rdpo_robust(margins(1e4, -1e4), beta=0.1, eps=0.1), [-0.1 * 1000 / 0.8, 0.9 * 1000 / 0.8])
    close(kto(labelled(numbers(1e4, -1e4), [True, True])), [0, 1])


def test_large_beta_makes_the_scaled_logistic_a_hinge() -> None:
    h = numbers(-2, -0.5, 0.5, 3)
    close(dpo(margins(*h.tolist()), beta=1e4) / 1e4, torch.relu(-h), 1e-9)


# Pitfalls, by their number in the project's list


def test_pitfall_2_label_smoothing_is_not_silently_without_effect() -> None:
    pairs = random_pairs()
    assert not torch.isclose(dpo(pairs, label_smoothing=0.1), dpo(pairs)).any()


def test_pitfall_4_sums_are_not_taken_for_tokens() -> None:
    """The same sums split over other tokens: a summed loss is unmoved, an averaged one sees the lengths."""
    sums = [numbers(-8, -6), numbers(-9, -5), numbers(-7, -7), numbers(-8, -8)]
    lengths = {"chosen_lengths": torch.tensor([4, 1]), "rejected_lengths": torch.tensor([2, 7])}
    short, spread = PairLogProbs.from_sums(*sums), PairLogProbs.from_sums(*sums, **lengths)
    for summed in (dpo, ipo, rso_hinge, rdpo_robust, slic_hinge):
        close(summed(short), summed(spread))
    for averaged in (ipo_mean, simpo, orpo):
        assert not torch.isclose(averaged(short), averaged(spread)).any()


@pytest.mark.parametrize("loss", [ipo, ipo_mean, dpo, rso_hinge, rdpo_robust])
def test_pitfall_5_no_zero_by_zero_where_policy_is_reference(loss) -> None:  # type: ignore[no-untyped-def]
    tokens = LogProbs.from_sequences([numbers(-1, -2, -0.5), numbers(-0.1)])
    leaf = tokens.values.clone().requires_grad_()
    side = PairSide(LogProbs(leaf, tokens.owner, 2), tokens)
    losses = loss(PairLogProbs(side, PairSide(tokens, tokens)))
    gradient = torch.autograd.grad(losses.sum(), leaf)[0]
    assert losses.isfinite().all()
    assert gradient.isfinite().all()
    assert (gradient < 0).all()


def test_pitfall_6_slic_returns_one_loss_per_pair() -> None:
    """A (pairs,) hinge plus a (pairs, tokens) likelihood broadcasts without an error when the two agree."""
    chosen = LogProbs.from_sequences([numbers(-1, -2), numbers(-3, -4)])
    rejected = LogProbs.from_sequences([numbers(-1, -1), numbers(-9, -9)])
    losses = slic_hinge(PairLogProbs(PairSide(chosen, rejected)), delta=1, lam=0.1)
    assert losses.shape == (2,)
    close(losses, [2 + 0.3, 0.7])


def test_pitfall_7_two_ipos_under_two_names() -> None:
    summed_only = random_pairs(length=1)
    close(ipo(summed_only), ipo_mean(summed_only))
    # n tokens with equal log-ratios: the averaged margin is the summed one over n
    n, h = 5, 3.0
    chosen = LogProbs.from_sequences([numbers(*[-1 + h / n] * n)])
    flat = LogProbs.from_sequences([numbers(*[-1] * n)])
    pairs = PairLogProbs(PairSide(chosen, flat), PairSide(flat, flat))
    close(ipo(pairs, beta=0.1), [(h - 5) ** 2])
    close(ipo_mean(pairs, beta=0.1), [(h / n - 5) ** 2])


def test_pitfall_7_ipo_averages_each_response_over_its_own_tokens() -> None:
    """Not over the packed row's, nor over both responses'."""
    chosen, rejected = LogProbs.from_sequences([numbers(-1, -1)]), LogProbs.from_sequences([numbers(-2, -2, -2, -2)])
    reference = PairSide(LogProbs.from_sequences([numbers(-2, -2)]), LogProbs.from_sequences([numbers(*[-1.5] * 4)]))
    # per-token gains are +1 and -0.5: a margin of 1.5 nats per token
    close(ipo_mean(PairLogProbs(PairSide(chosen, rejected), reference), beta=0.5), [(1.5 - 1) ** 2])


def test_pitfall_8_simpo_has_no_likelihood_term() -> None:
    """Both responses less likely by the same number of nats per token: SimPO sees no difference, ORPO does."""

    def lowered(by: float) -> PairLogProbs:
        lengths = torch.tensor([3, 6])
        chosen, rejected = numbers(-6, -9) - by * lengths, numbers(-12, -8) - by * lengths.flip(0)
        return PairLogProbs.from_sums(chosen, rejected, chosen_lengths=lengths, rejected_lengths=lengths.flip(0))

    close(simpo(lowered(2.0)), simpo(lowered(0.0)))
    assert not torch.isclose(orpo(lowered(2.0)), orpo(lowered(0.0))).any()


def test_pitfall_8_gamma_is_a_ratio() -> None:
    """The target margin is gamma / beta nats per token: at that margin the loss is log 2 whatever beta is."""
    pairs = PairLogProbs.from_sums(numbers(-1), numbers(-1.4))
    for beta in (0.5, 2.0, 10.0):
        close(simpo(pairs, beta=beta, gamma_beta_ratio=0.4), [math.log(2)], 1e-9)


def test_pitfall_13_ktos_reference_point_is_the_global_one_in_every_micro_batch() -> None:
    rewards = numbers(3, -1, 0.5, 2, -4, 1)
    labels = [True, False, True, True, False, False]
    whole = kto(labelled(rewards, labels, kl=0.8))
    for size in (1, 2, 4):
        parts = [
            kto(labelled(rewards[i : i + size], labels[i : i + size], kl=0.8)) for i in range(0, len(rewards), size)
        ]
        close(torch.cat(parts), whole)


def test_pitfall_13_sft_divides_by_tokens_of_the_whole_batch() -> None:
    sequences = [-torch.rand(n, dtype=torch.float64) for n in (1, 9, 2, 30)]
    whole = sft(ResponseLogProbs(LogProbs.from_sequences(sequences))).sum() / 42
    parts = sum(sft(ResponseLogProbs(LogProbs.from_sequences([s]))).sum() for s in sequences) / 42
    close(whole, parts)
    close(whole, -torch.cat(sequences).mean())
    of_means = torch.stack([-s.mean() for s in sequences]).mean()
    assert not torch.isclose(whole, of_means), "this batch could not tell a token mean from a mean of means"


def test_pitfall_14_kto_never_pairs_within_the_batch() -> None:
    """One response alone, or an odd number of them, has the loss that it has in company."""
    rewards = numbers(3, -1, 0.5)
    batch = kto(labelled(rewards, [True, False, True], kl=0.3))
    for i, label in enumerate([True, False, True]):
        close(kto(labelled(rewards[i : i + 1], [label], kl=0.3)), batch[i : i + 1])


def test_pitfall_14_ktos_reference_point_is_never_negative_and_takes_no_gradient() -> None:
    rewards = numbers(3, -1)
    close(kto(labelled(rewards, [True, False], kl=-5.0)), kto(labelled(rewards, [True, False], kl=0.0)))
    kl = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    policy = torch.tensor([-3.0], dtype=torch.float64, requires_grad=True)
    loss = kto(
        ResponseLogProbs(
            LogProbs.from_sums(policy),
            LogProbs.from_sums(numbers(-4)),
            desirable=torch.tensor([True]),
            mismatched_kl=kl,
        )
    )
    of_policy, of_kl = torch.autograd.grad(loss.sum(), [policy, kl], allow_unused=True)
    assert of_kl is None
    assert of_policy.item() < 0


def test_pitfall_17_orpo_is_finite_where_a_response_is_certain() -> None:
    """log(1 - exp(0)) is minus infinity, and its gradient NaN; nearly certain tokens round to it in fp32."""
    for dtype in (torch.float32, torch.float64):
        for c, r in [(0.0, 0.0), (0.0, -1.0), (-1.0, 0.0), (-1e-9, -1e-9), (-1e4, 0.0), (0.0, -1e4), (-1e30, -1e30)]:
            chosen = torch.tensor([c], dtype=dtype, requires_grad=True)
            rejected = torch.tensor([r], dtype=dtype, requires_grad=True)
            loss = orpo(PairLogProbs.from_sums(chosen, rejected))
            assert loss.isfinite().all(), (c, r, dtype)
            for gradient in torch.autograd.grad(loss.sum(), [chosen, rejected]):
                assert gradient.isfinite().all(), (c, r, dtype)


def test_pitfall_17_orpo_keeps_its_digits_near_certainty() -> None:
    """At probability 1 - 1e-6 the odds are a million; log1p(-exp(x)) in fp32 has lost six of its digits there."""
    near = torch.tensor([math.log1p(-1e-6)], dtype=torch.float32)
    half = torch.tensor([math.log(0.5)], dtype=torch.float32)
    loss = orpo(PairLogProbs.from_sums(half, near), lam=1.0)
    assert loss.item() == pytest.approx(math.log(2) + math.log1p(999999), rel=1e-6)


@pytest.mark.parametrize("loss", [dpo, simpo, rdpo_robust])
def test_pitfall_17_logistic_losses_do_not_overflow(loss) -> None:  # type: ignore[no-untyped-def]
    """log(1 + exp(x)) is infinite from x = 89 on in fp32; its true value is x."""
    chosen = torch.tensor([-1e6], requires_grad=True)
    zero = torch.zeros(1)
    value = loss(PairLogProbs.from_sums(chosen, zero, zero, zero), beta=1.0)
    assert value.item() == pytest.approx(1e6 * (0.9 / 0.8 if loss is rdpo_robust else 1), rel=1e-6)
    assert torch.autograd.grad(value.sum(), chosen)[0].isfinite().all()


def test_pitfall_17_kto_keeps_small_losses() -> None:
    """1 - sigmoid(40) is 0 in fp32; the loss of a well-learnt response is exp(-40), and so is its gradient."""
    batch = labelled(torch.tensor([400.0]), [True])
    assert kto(batch, beta=0.1).item() == pytest.approx(math.exp(-40), rel=1e-5)
