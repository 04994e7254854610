"""The tabular world against closed forms and plain float64 loops."""

from __future__ import annotations

from dataclasses import replace
from math import exp, inf, log

import pytest
import torch

from boresight.errors import InputError
from boresight.lab.tabular import Pairs, TabularPolicy, TabularWorld, fit, losses
from boresight.objectives import PairLogProbs, find, objectives
from exact_worlds import check_a_step_lowers_the_loss, check_seeds_are_apart
from objective_checks import NAMES


@pytest.fixture(scope="module")
def world() -> TabularWorld:
    return TabularWorld.random(3, 4, seed=0)


def softmax(row):
    weights = [exp(x) for x in row]
    return [w / sum(weights) for w in weights]


def test_reward_and_kl_are_those_of_plain_loops(world):
    logits = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    for table, reward, kl in zip(logits.tolist(), world.expected_reward(logits), world.kl(logits), strict=True):
        plain_reward = plain_kl = 0.0
        for row, rewards, reference in zip(table, world.reward.tolist(), world.reference.tolist(), strict=True):
            for p, r, q in zip(softmax(row), rewards, softmax(reference), strict=True):
                plain_reward += p * r / 3
                plain_kl += p * log(p / q) / 3
        assert float(reward) == pytest.approx(plain_reward, abs=1e-12)
        assert float(kl) == pytest.approx(plain_kl, abs=1e-12)


def test_kl_is_zero_at_the_reference_and_finite_where_the_policy_gives_up_a_response(world):
    assert float(world.kl(world.reference)) == pytest.approx(0, abs=1e-14)
    greedy = torch.full((3, 4), -torch.inf, dtype=torch.float64)
    greedy[:, 2] = 0.0
    assert float(world.kl(greedy)) == pytest.approx(float(-world.reference[:, 2].mean()))


def test_the_tilted_policy_beats_every_other_on_reward_minus_kl(world):
    beta = 0.7
    tilted = world.tilted(beta)

    def value(logits):
        return world.expected_reward(logits) - beta * world.kl(logits)

    # The optimum's value is beta * log Z, and the gap of any policy is beta * KL(policy || tilted).
    partition = (world.reference + world.reward / beta).logsumexp(-1).mean() * beta
    assert float(value(tilted)) == pytest.approx(float(partition), abs=1e-12)
    other = torch.randn(3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64).log_softmax(-1)
    gap = beta * (other.exp() * (other - tilted)).sum(-1).mean()
    assert float(value(tilted) - value(other)) == pytest.approx(float(gap), abs=1e-12)
    assert world.tilted(1e6) == pytest.approx(world.reference, abs=1e-4)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_dpo_on_infinite_data_reaches_the_tilted_policy(world, beta):
    policy = fit(world, "dpo", pairs=world.population(), hyperparameters={"beta": beta}, steps=1500, lr=0.05)
    assert policy.logits.detach()[0].softmax(-1) == pytest.approx(world.tilted(beta).exp(), abs=2e-5)


def test_rdpo_on_infinite_flipped_data_reaches_the_tilted_policy_and_dpo_does_not(world):
    flipped = world.population(flip=0.3)
    robust = fit(world, "rdpo-robust", pairs=flipped, hyperparameters={"beta": 1.0, "eps": 0.3}, steps=1500, lr=0.05)
    plain = fit(world, "dpo", pairs=flipped, hyperparameters={"beta": 1.0}, steps=1500, lr=0.05)
    assert robust.logits.detach()[0].softmax(-1) == pytest.approx(world.tilted(1.0).exp(), abs=2e-5)
    assert (
        float(world.expected_reward(plain.logits.detach())) < float(world.expected_reward(robust.logits.detach())) - 0.1
    )


def test_ipo_on_infinite_data_reaches_its_fixed_point(world):
    """Azar et al. 2023: reference * exp(P(y beats a draw of the behaviour policy) / tau) / Z."""
    tau = 0.4
    behaviour = world.reference.exp()
    wins = torch.sigmoid(world.reward[:, :, None] - world.reward[:, None, :])
    expected = (world.reference + (wins * behaviour[:, None, :]).sum(-1) / tau).softmax(-1)
    policy = fit(world, "ipo", pairs=world.population(), hyperparameters={"beta": tau}, steps=1500, lr=0.05)
    assert policy.logits.detach()[0].softmax(-1) == pytest.approx(expected, abs=2e-5)


def test_two_responses_give_bradley_terry_and_the_reward_model_its_difference():
    world = TabularWorld(torch.tensor([[1.5, 0.0]]), torch.zeros(1, 2))
    first, second = torch.tensor([0]), torch.tensor([1])
    assert float(world.preference(first, first, second)) == pytest.approx(1 / (1 + exp(-1.5)))
    policy = fit(world, "bt-reward", pairs=world.population(), steps=800, lr=0.05)
    table = policy.logits.detach()[0, 0]
    assert float(table[0] - table[1]) == pytest.approx(1.5, abs=1e-4)


def test_sampled_pairs_occur_as_often_as_the_population_says(world):
    n, flip = 200_000, 0.25
    sampled, whole = world.sample_pairs(n, 3, flip=flip), world.population(flip=flip)

    def cell(pairs):
        return (pairs.prompt * 4 + pairs.chosen) * 4 + pairs.rejected

    counts = torch.bincount(cell(sampled)[0], minlength=48).double()
    expected = torch.zeros(48, dtype=torch.float64).index_add(0, cell(whole)[0], whole.weight[0])
    expected = expected / expected.sum() * n
    seen = expected > 0
    assert counts[~seen].sum() == 0
    chi = float(((counts - expected)[seen] ** 2 / expected[seen]).sum())
    assert chi < 35 + 5 * (2 * 35) ** 0.5
    assert float(sampled.flipped.double().mean()) == pytest.approx(flip, abs=5 * (flip * (1 - flip) / n) ** 0.5)


def test_the_population_is_two_draws_that_differ(world):
    whole = world.population(flip=0.2)
    q = world.reference.exp().tolist()
    different = sum(q[p][a] * q[p][b] for p in range(3) for a in range(4) for b in range(4) if a != b)
    for p, a, b, weight in zip(
        *(getattr(whole, f)[0].tolist() for f in ("prompt", "chosen", "rejected", "weight")), strict=True
    ):
        wins = 1 / (1 + exp(float(world.reward[p, b] - world.reward[p, a])))
        # Either order of the two draws gives the pair, hence the 2; P(a, b is the pair) * P(a is said to win).
        share = 2 * q[p][a] * q[p][b] * (0.8 * wins + 0.2 * (1 - wins)) / different
        assert weight / whole.weight.numel() == pytest.approx(share, rel=1e-12)


@pytest.fixture(scope="module")
def scored(world) -> TabularWorld:
    """The same with every score that an objective may ask for, in [0, 1], in the order of the true reward."""
    ranks = world.reward.argsort(1).argsort(1) / 3
    return TabularWorld(world.reward, world.reference, rewards=dict.fromkeys(NAMES[1:], ranks))


@pytest.mark.parametrize("name", sorted(objectives()))
def test_every_objective_trains_and_seeds_do_not_touch_each_other(scored, name):
    check_seeds_are_apart(find(name), scored, scored.sample_pairs(20, [7, 3], certainty=inf))


@pytest.mark.parametrize("name", sorted(objectives()))
def test_every_objective_lowers_its_own_loss(scored, name):
    check_a_step_lowers_the_loss(find(name), scored, scored.sample_pairs(20, 7, certainty=inf))


def test_batches_come_from_the_seed(world):
    pairs = world.sample_pairs(60, 0)
    runs = [fit(world, "dpo", pairs=pairs, steps=10, batch=8, seed=s).logits.detach() for s in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_labelled_responses_carry_labels_and_the_mismatched_estimate(world):
    pairs = world.sample_pairs(7, 0)
    logits = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    batch = TabularPolicy(world, logits).labelled(pairs)
    assert batch.desirable.tolist() == [True] * 7 + [False] * 7
    prompts = pairs.prompt[0].tolist() * 2
    responses = pairs.chosen[0].tolist() + pairs.rejected[0].tolist()
    ratio = (logits[0].log_softmax(-1) - world.reference).tolist()
    # The response stays, its prompt is the one of the row before.
    plain = sum(ratio[prompts[i - 1]][responses[i]] for i in range(14)) / 14
    assert float(batch.mismatched_kl) == pytest.approx(plain, abs=1e-12)


def test_lengths_reach_objectives_that_average(world):
    lengths = torch.tensor([[1, 2, 3, 4]]).expand(3, 4)
    long = TabularWorld(world.reward, world.reference, lengths)
    pairs = long.sample_pairs(20, 0)
    batch: PairLogProbs = TabularPolicy.at_reference(long).pairs(pairs)
    table = world.reference.tolist()
    for i, mean in enumerate(batch.policy.chosen.mean().tolist()):
        prompt, response = int(pairs.prompt[0, i]), int(pairs.chosen[0, i])
        assert mean == pytest.approx(table[prompt][response] / (response + 1), abs=1e-12)


@pytest.mark.parametrize(
    ("reward", "reference"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2, 1), torch.zeros(2, 1)),
        (torch.full((1, 2), torch.nan), torch.zeros(1, 2)),
    ],
)
def test_unusable_tables_are_refused(reward, reference):
    with pytest.raises(InputError):
        TabularWorld(reward, reference)


def test_unusable_options_are_refused(world):
    with pytest.raises(InputError, match="flip is 2"):
        world.sample_pairs(3, 0, flip=2)
    with pytest.raises(InputError, match="not an objective"):
        fit(world, len, pairs=world.population())
    with pytest.raises(InputError, match="beta is 0"):
        world.tilted(0)
