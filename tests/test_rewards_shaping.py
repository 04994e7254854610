"""Designed rewards against closed forms, policies tried one by one, and sets of states tried one by one."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy.optimize import minimize

from boresight.errors import InputError
from boresight.rewards.shaping import (
    Process,
    _Programme,
    design,
    horizon_values,
    optimal,
    potential_shaping,
    toward,
    value_iteration,
)


def chain(states: int, discount: float = 0.9) -> Process:
    """Left and right; entering the last state pays 1, and it is the end."""
    move, reward = np.zeros((states, 2, states)), np.zeros((states, 2))
    for s in range(states - 1):
        move[s, 0, max(s - 1, 0)] = move[s, 1, s + 1] = 1
    move[-1, :, -1] = 1
    reward[-2, 1] = 1
    return Process(move, reward, discount)


def drawn(seed: int, states: int = 4, actions: int = 2, discount: float = 0.8) -> Process:
    rng = np.random.default_rng(seed)
    move = rng.dirichlet(np.ones(states), (states, actions))
    return Process(move, rng.normal(size=(states, actions)), discount)


def values_of(process: Process, actions: tuple[int, ...]) -> np.ndarray:
    rows = np.arange(len(actions))
    step = process.discount * process.move[rows, list(actions)]
    return np.linalg.solve(np.eye(len(rows)) - step, process.reward[rows, list(actions)])


@pytest.mark.parametrize("seed", range(4))
def test_values_are_those_of_the_best_of_all_policies(seed):
    process = drawn(seed)
    tried = {actions: values_of(process, actions) for actions in product(range(2), repeat=4)}
    best = max(tried, key=lambda a: tried[a].sum())
    values, action_values = value_iteration(process)
    assert values == pytest.approx(tried[best], abs=1e-9)
    assert optimal(process).argmax(1).tolist() == list(best)
    assert action_values.max(1) == pytest.approx(values, abs=1e-9)


def test_values_of_a_chain_are_powers_of_the_discount():
    process = chain(5)
    assert value_iteration(process)[0] == pytest.approx([0.9**3, 0.9**2, 0.9, 1, 0])
    assert optimal(process)[:4].tolist() == [[False, True]] * 4
    assert optimal(process)[4].tolist() == [True, True]
    assert value_iteration(Process(process.move, process.reward, 0.0))[0].tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("seed", range(6))
def test_shaping_by_any_potential_takes_it_off_the_values_and_keeps_what_is_optimal(seed):
    process = drawn(seed)
    potential = np.random.default_rng(100 + seed).normal(size=4) * 5
    shaped = potential_shaping(process, potential)
    assert value_iteration(shaped)[1] == pytest.approx(value_iteration(process)[1] - potential[:, None], abs=1e-8)
    assert (optimal(shaped) == optimal(process)).all()
    own = potential_shaping(process)
    values, action_values = value_iteration(process)
    assert own.reward == pytest.approx(action_values - values[:, None], abs=1e-9)  # the advantage
    assert own.reward.max(1) == pytest.approx(np.zeros(4), abs=1e-9)


def test_values_over_a_horizon_are_those_of_stepping_through_it():
    process = drawn(7)
    policy = np.random.default_rng(8).dirichlet(np.ones(2), 4)
    expected, later = np.zeros((4, 2)), np.zeros(4)
    for horizon in range(1, 6):
        expected = process.reward + process.discount * process.move @ later
        later = (policy * expected).sum(1)
        found = horizon_values(process, policy, horizon) @ process.reward.reshape(-1)
        assert found.reshape(4, 2) == pytest.approx(expected, abs=1e-12)
    whole = horizon_values(process, policy, None) @ process.reward.reshape(-1)
    far = horizon_values(process, policy, 200) @ process.reward.reshape(-1)
    assert whole == pytest.approx(far, abs=1e-9)


def informed(process: Process, reward: np.ndarray, horizons, cap: float, weights=None) -> float:
    """What `design` maximises, for processes with one optimal action in each state, step by step."""
    best, total = optimal(process).argmax(1), 0.0
    rows = np.arange(len(best))
    later = np.zeros(len(best))
    for h in range(1, max(horizons) + 1):
        values = reward + process.discount * process.move @ later
        later = values[rows, best]
        if h in horizons:
            gap = np.minimum(cap, later[:, None] - values)
            gap[rows, best] = 0
            total += float((gap * (1 if weights is None else weights)).sum())
    return total


@pytest.mark.parametrize("seed", range(4))
def test_a_designed_reward_is_sparse_bounded_and_keeps_what_is_optimal(seed):
    process = drawn(seed)
    made = design(process, 3, horizons=(1, 3), margin=0.01)
    assert set(np.flatnonzero(np.abs(made.reward).max(1) > 1e-9)) <= set(made.states)
    assert len(made.states) <= 3
    assert np.abs(made.reward).max() <= 1 + 1e-9
    under = Process(process.move, made.reward, process.discount)
    values = value_iteration(under)[1]
    good = optimal(process)
    assert (good == (values >= values.max(1, keepdims=True) - 1e-6)).all()
    assert (values.max(1, keepdims=True) - values)[~good].min() >= 0.01 - 1e-6
    assert made.informativeness == pytest.approx(informed(process, made.reward, (1, 3), 0.1), abs=1e-7)


def test_no_other_reward_tells_more():
    """Random rewards that keep the constraints, and a search from the best of them, tell no more than the programme."""
    process = drawn(3, states=3)
    made = design(process, 3, horizons=(1, 2), margin=0.01)
    rng = np.random.default_rng(0)
    good, most = optimal(process), -np.inf

    def lost(flat: np.ndarray) -> float:
        reward = np.clip(flat.reshape(3, 2), -1, 1)
        values = value_iteration(Process(process.move, reward, process.discount), 1e-9)[1]
        best = values[good]
        short = np.maximum(0.01 - (best[:, None] - values), 0)[~good].sum()
        return -informed(process, reward, (1, 2), 0.1) + 100 * short

    for _ in range(5):
        most = max(most, -minimize(lost, rng.uniform(-1, 1, 6), method="Nelder-Mead").fun)
    assert most <= made.informativeness + 1e-6
    assert most > 0.8 * made.informativeness


def test_states_are_the_best_set_and_greedy_search_is_no_better():
    process = drawn(1)
    options = {"horizons": (1,), "cap": 0.1, "margin": 1e-3, "bound": 5.0}
    solve = _Programme(process, *options.values(), None)
    told = {chosen: solve(chosen) for chosen in combinations(range(4), 3)}
    able = {c: d.informativeness for c, d in told.items() if solve.short(d.reward) < 1e-6}
    assert design(process, 3, **options).informativeness == pytest.approx(max(able.values()))
    all_of_them = [design(process, 4, exact=e, **options).informativeness for e in (0, 500)]
    assert all_of_them[0] == pytest.approx(all_of_them[1])  # in whatever order they were taken
    assert design(chain(6), 2, exact=0).informativeness <= design(chain(6), 2).informativeness + 1e-9


def test_one_state_of_a_chain_can_carry_the_reward():
    made = design(chain(5), 1, margin=1e-2)
    assert len(made.states) == 1
    assert (optimal(Process(chain(5).move, made.reward, 0.9)) == optimal(chain(5))).all()


def test_weights_tell_which_mistakes_count():
    process = chain(5)
    weights = np.zeros((5, 2))
    weights[0, 0] = 1  # only the mistake at the beginning
    made = design(process, 2, horizons=(1,), weights=weights)
    assert 0 in made.states
    assert made.informativeness == pytest.approx(0.1)  # one gap, at its cap


def test_visits_of_a_learner_are_discounted_and_sum_to_one():
    process = chain(4, 0.5)
    right = np.tile([0.0, 1.0], (4, 1))
    found = toward(process, right, np.eye(4)[0])
    assert found[:, 1] == pytest.approx([0.5, 0.25, 0.125, 0.125])
    assert found[:, 0].tolist() == [0] * 4
    rng = np.random.default_rng(0)
    assert toward(drawn(0), rng.dirichlet(np.ones(2), 4), np.ones(4) / 4).sum() == pytest.approx(1)


def test_what_is_no_process_and_what_cannot_be_designed():
    made = chain(3)
    for move, reward, discount, said in (
        (made.move[:2], made.reward, 0.9, "shape"),
        (made.move * 2, made.reward, 0.9, "probabilities"),
        (made.move, made.reward, 1.0, "discount"),
        (made.move, made.reward * np.nan, 0.9, "shape"),
    ):
        with pytest.raises(InputError, match=said):
            Process(move, reward, discount)
    for options in ({"most": 0}, {"most": 4}, {"most": 1, "horizons": ()}, {"most": 1, "cap": 0}):
        with pytest.raises(InputError, match="most="):
            design(made, **options)
    with pytest.raises(InputError, match="weights have shape"):
        design(made, 1, weights=-np.ones((3, 2)))
    with pytest.raises(InputError, match="no reward on 1 states"):
        design(made, 1, margin=1.5)
