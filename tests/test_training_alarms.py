from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from boresight.data.tokens import Row, Tokens
from boresight.objectives import find
from boresight.training.alarm_rules import closed_form
from boresight.training.alarms import Alarm, Alarms, write_offending_rows

HEALTHY = {
    "loss": 0.61,
    "grad_norm": 1.3,
    "lr": 1e-6,
    "margin": 1.2,
    "accuracy": 0.66,
    "chosen_gain": 0.4,
    "rejected_gain": -0.8,
    "chosen_logp_token": -1.1,
    "rejected_logp_token": -1.3,
    "chosen_length": 51.0,
    "rejected_length": 47.0,
    "sample_surprisal": 2.1,
    "sample_repetition": 0.02,
    "sample_ends": 0.8,
    "sample_length": 60.0,
}


def names(alarms: list[Alarm]) -> list[str]:
    return [a.name for a in alarms]


def run(alarms: Alarms, count: int, first: int = 10, every: int = 10, **metrics: float) -> list[Alarm]:
    return [a for k in range(count) for a in alarms.look(first + k * every, HEALTHY | metrics)]


def test_a_healthy_run_is_silent() -> None:
    alarms = Alarms(find("dpo"))
    for step in range(0, 1000, 10):
        held_out = {f"eval_{k}": v for k, v in HEALTHY.items()}
        assert alarms.look(step, HEALTHY) == []
        assert alarms.look(step, held_out) == []
    assert alarms.look(1000, {}) == []


@pytest.mark.parametrize("method", ["dpo", "ipo", "simpo", "orpo", "kto", "sft", "bt-reward", "rdpo-robust"])
def test_no_method_alarms_at_its_own_start(method: str) -> None:
    """At step 0 policy = reference: the loss is its closed form, gains are 0, warm-up's first lr is 0."""
    objective = find(method)
    start = {"loss": objective.closed_form(nll=1.2) or 1.2, "grad_norm": 0.7, "lr": 0.0, "margin": 0.0,
             "accuracy": 0.5, "chosen_gain": 0.0, "rejected_gain": 0.0, "sample_surprisal": 2.0,
             "sample_repetition": 0.0, "sample_ends": 0.5, "sample_length": 20.0}  # fmt: skip
    alarms = Alarms(objective)
    assert alarms.look(0, start | {f"eval_{k}": v for k, v in start.items()}) == []


def test_displacement_on_held_out_data_is_told_at_once_and_with_its_size() -> None:
    alarms = Alarms(find("dpo"))
    found = alarms.look(100, {"eval_chosen_gain": -2.0, "eval_rejected_gain": -8.0, "eval_margin": 6.0})
    assert names(found) == ["likelihood displacement"]
    assert found[0].severity == "warning"
    assert "7.39 times (-2.0 nats)" in found[0].sentence  # e^2
    assert "e^8 times (-8.0 nats)" in found[0].sentence
    assert "no bug" in found[0].sentence
    for remedy in ("beta", "lr", "NLL", "DPOP"):
        assert remedy in found[0].mend


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [(-0.9, -5.0), (-5.0, -3.0), (1.0, -9.0), (-2.0, -2.0), (3.0, 1.0)],
)
def test_what_is_no_displacement(chosen: float, rejected: float) -> None:
    """Less than a nat, a shrinking margin, a chosen that rises: all something else."""
    alarms = Alarms(find("dpo"))
    assert "likelihood displacement" not in names(run(alarms, 10, chosen_gain=chosen, rejected_gain=rejected))
    assert alarms.look(200, {"eval_chosen_gain": chosen, "eval_rejected_gain": rejected}) == []


def test_displacement_in_training_batches_must_last_three_looks() -> None:
    alarms = Alarms(find("dpo"))
    down = {"chosen_gain": -3.0, "rejected_gain": -7.0}
    assert run(alarms, 2, **down) == []
    assert run(alarms, 1, first=30) == []
    assert run(alarms, 2, first=40, **down) == []
    assert names(run(alarms, 1, first=60, **down)) == ["likelihood displacement"]


def test_displacement_without_a_reference_is_against_the_first_evaluation() -> None:
    alarms = Alarms(find("simpo"))
    first = {"eval_chosen_logp_token": -1.0, "eval_rejected_logp_token": -1.0,
             "eval_chosen_length": 40.0, "eval_rejected_length": 30.0}  # fmt: skip
    assert alarms.look(0, first) == []
    found = alarms.look(50, first | {"eval_chosen_logp_token": -1.05, "eval_rejected_logp_token": -1.2})
    assert names(found) == ["likelihood displacement"]
    assert "7.39 times (-2.0 nats) less likely than at the start" in found[0].sentence
    assert "e^6" not in found[0].sentence
    assert "403 times (-6.0 nats)" in found[0].sentence


def test_an_alarm_is_raised_once_and_again_after_it_cleared() -> None:
    alarms = Alarms(find("dpo"))
    bad, good = {"grad_norm": 0.0}, {"grad_norm": 1.0}
    assert [len(alarms.look(s, bad | {"loss": 0.6})) for s in range(4)] == [1, 0, 0, 0]
    assert alarms.look(4, good) == []
    assert len(alarms.look(5, bad | {"loss": 0.6})) == 1


def test_a_kind_that_two_rules_see_is_raised_once() -> None:
    alarms = Alarms(find("dpo"))
    assert len(alarms.look(10, {"eval_chosen_gain": -3.0, "eval_rejected_gain": -9.0})) == 1
    assert run(alarms, 6, first=20, chosen_gain=-3.0, rejected_gain=-9.0) == []
    # What training batches say does not clear what the held-out data said.
    assert run(alarms, 6, first=100) == []
    assert alarms.look(200, {"eval_chosen_gain": -3.0, "eval_rejected_gain": -9.0}) == []


@pytest.mark.parametrize(("key", "value"), [("loss", math.nan), ("grad_norm", math.inf), ("eval_loss", -math.inf)])
def test_not_finite_is_fatal_and_first(key: str, value: float) -> None:
    found = Alarms(find("dpo")).look(7, HEALTHY | {"eval_chosen_gain": -3.0, "eval_rejected_gain": -9.0, key: value})
    assert names(found) == ["not finite", "likelihood displacement"]
    assert found[0].severity == "fatal"
    assert f"{key} is {value}" in found[0].sentence
    assert "offending-rows" in found[0].mend


def test_not_finite_elsewhere_is_as_if_absent() -> None:
    """A mean over no rows is nan: nothing is wrong with the run."""
    alarms = Alarms(find("kto"))
    assert (
        alarms.look(1, {"loss": 0.5, "chosen_gain": math.nan, "rejected_gain": -3.0, "sample_length": math.nan}) == []
    )
    assert json.loads(json.dumps(alarms.state_dict(), allow_nan=False))


def test_not_finite_stays_raised_while_other_looks_come() -> None:
    alarms = Alarms(find("dpo"))
    assert len(alarms.look(1, {"loss": math.nan})) == 1
    assert alarms.look(1, {"sample_length": 30.0}) == []
    assert alarms.look(2, {"loss": math.nan, "grad_norm": 1.0}) == []


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        # Pitfall 1.3: pairs made identical by truncation; loss log 2, gradient 0.
        (
            {"loss": math.log(2), "margin": 0.0, "chosen_logp_token": -1.1, "rejected_logp_token": -1.1,
             "chosen_length": 20.0, "rejected_length": 20.0},
            "the same tokens",
        ),
        ({"loss": 0.0, "margin": 40.0}, "nothing is left to learn"),
        ({"loss": math.log(2), "margin": 0.0}, "reaches no weight"),
        ({"loss": 0.6}, "reaches no weight"),
    ],
)  # fmt: skip
def test_zero_gradient_says_which(metrics: dict[str, float], words: str) -> None:
    found = run(Alarms(find("dpo")), 1, grad_norm=0.0, **metrics)
    assert "zero gradient" in names(found)
    assert words in found[0].sentence


def test_a_small_gradient_is_not_zero() -> None:
    assert run(Alarms(find("dpo")), 5, grad_norm=1e-30) == []


def test_lr_zero_must_last() -> None:
    """The first step of a warm-up and the last of a decay are 0 by right."""
    alarms = Alarms(find("dpo"))
    assert run(alarms, 1, lr=0.0) == []
    assert run(alarms, 3, first=20) == []
    assert run(alarms, 2, first=50, lr=0.0) == []
    assert names(run(alarms, 1, first=70, lr=0.0)) == ["learning rate zero"]


@pytest.mark.parametrize(
    ("method", "options", "value"),
    [("dpo", {}, math.log(2)), ("ipo", {"beta": 0.5}, 1.0), ("bt-reward", {}, math.log(2))],
)
def test_a_loss_stuck_at_its_closed_form(method: str, options: dict[str, Any], value: float) -> None:
    """Pitfall 2.9: 0.693 for ever. IPO at beta has (1 / (2 beta))^2, with the beta of the run."""
    alarms = Alarms(find(method), options, stuck_steps=50)
    found = run(alarms, 30, loss=value + 2e-5, margin=1e-6, accuracy=0.5)
    assert names(found) == ["loss stuck"]
    assert found[0].step == 60
    assert f"{value:.4f}" in found[0].sentence
    assert "1.0e-06" in found[0].sentence


def test_a_loss_that_moves_a_little_is_not_stuck() -> None:
    alarms = Alarms(find("dpo"))
    assert run(alarms, 30, loss=math.log(2) - 3e-4, accuracy=0.55) == []


def test_closed_forms_are_used_only_where_training_starts_there() -> None:
    assert closed_form(find("dpo"), {}) == pytest.approx(math.log(2))
    assert closed_form(find("dpo"), {"beta": 0.5}) == pytest.approx(math.log(2))
    assert closed_form(find("sft"), {}) is None  # depends on the data
    assert closed_form(find("simpo"), {}) is None  # nothing says that training starts at zero margin
    assert closed_form(None, {}) is None


@pytest.mark.parametrize(
    ("held_out", "words"),
    [(None, "nothing is held out"), (0.58, "0.580: the rows are learnt by heart"), (0.995, "give the answer away")],
)
def test_saturation_is_told_beside_the_held_out_accuracy(held_out: float | None, words: str) -> None:
    alarms = Alarms(find("dpo"))
    if held_out is not None:
        alarms.look(0, {"eval_accuracy": held_out})
    found = run(alarms, 5, accuracy=1.0, loss=0.002, margin=60.0)
    assert names(found) == ["saturated"]
    assert words in found[0].sentence
    assert run(Alarms(find("dpo")), 4, accuracy=1.0, loss=0.002) == []
    assert run(Alarms(find("dpo")), 9, accuracy=1.0, loss=0.3) == []
    assert run(Alarms(find("dpo")), 9, accuracy=0.99, loss=0.002) == []


def test_a_held_out_loss_above_its_start_is_overfit() -> None:
    alarms = Alarms(find("dpo"))
    looks = [(0, 0.6931), (20, 0.6254), (40, 0.6980), (60, 0.7083), (80, 0.75)]
    alarms.look(70, {"loss": 0.0467})
    found = [alarms.look(step, {"eval_loss": loss}) for step, loss in looks]
    assert [names(f) for f in found] == [[], [], [], [], ["overfit"]]
    assert "0.75, above the 0.6931 before training" in found[-1][0].sentence
    assert "0.0467" in found[-1][0].sentence


def test_samples_are_compared_with_those_of_the_start() -> None:
    alarms = Alarms(find("dpo"))
    assert alarms.look(0, HEALTHY) == []
    fine = {"sample_surprisal": 1.1, "sample_repetition": 0.11, "sample_ends": 0.45, "sample_length": 88.0}
    assert alarms.look(10, fine) == []
    found = alarms.look(
        20, {"sample_surprisal": 0.9, "sample_repetition": 0.31, "sample_ends": 0.3, "sample_length": 120.0}
    )
    assert names(found) == ["entropy collapse", "repetition collapse", "samples do not end", "length drift"]
    said = {a.name: a.sentence for a in found}
    assert "0.90 nats" in said["entropy collapse"]
    assert "2.10 at the start" in said["entropy collapse"]
    assert "31%" in said["repetition collapse"]
    assert "30%" in said["samples do not end"]
    assert "80%" in said["samples do not end"]
    assert "120 tokens" in said["length drift"]
    assert "chosen responses have 51 tokens on average and rejected ones 47" in said["length drift"]


def test_samples_that_shrink_drift_too() -> None:
    alarms = Alarms()
    alarms.look(0, {"sample_length": 60.0})
    assert alarms.look(1, {"sample_length": 41.0}) == []
    assert names(alarms.look(2, {"sample_length": 39.0})) == ["length drift"]


def test_a_model_that_never_ended_is_noted_not_warned_of() -> None:
    found = Alarms().look(0, {"sample_ends": 0.0, "sample_length": 64.0})
    assert names(found) == ["samples do not end"]
    assert found[0].severity == "note"
    assert "64 tokens" in found[0].sentence
    assert "sample_tokens" in found[0].mend


def test_a_base_model_that_repeats_itself_from_the_start_must_get_worse() -> None:
    alarms = Alarms()
    alarms.look(0, {"sample_repetition": 0.5})
    assert alarms.look(1, {"sample_repetition": 0.55}) == []
    assert names(alarms.look(2, {"sample_repetition": 0.65})) == ["repetition collapse"]


def test_an_interrupted_run_remembers() -> None:
    """Looks over a save, through JSON, are the looks of a run that was never interrupted."""
    rng = np.random.default_rng(0)
    looks = [
        {k: float(v * (1 + 0.8 * rng.normal())) for k, v in HEALTHY.items()}
        | ({"grad_norm": 0.0} if i % 7 == 3 else {})
        for i in range(60)
    ]
    whole = Alarms(find("dpo"))
    expected = [whole.look(i, m) for i, m in enumerate(looks)]
    assert sum(map(len, expected)) > 5
    for cut in (0, 1, 17, 42):
        first, second = Alarms(find("dpo")), Alarms(find("dpo"))
        before = [first.look(i, m) for i, m in enumerate(looks[:cut])]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        after = [second.look(i + cut, m) for i, m in enumerate(looks[cut:])]
        assert before + after == expected
        assert second.state_dict() == whole.state_dict()
    fresh = Alarms()
    fresh.load_state_dict({})
    assert fresh.state_dict() == Alarms().state_dict()


def test_an_alarm_reads_as_two_lines() -> None:
    alarm = Alarm(40, "zero gradient", "warning", "It is 0.", "raise lr")
    assert str(alarm) == "step 40, warning, zero gradient: It is 0.\n  mend: raise lr"


def test_every_sentence_is_one_and_every_mend_says_something() -> None:
    alarms = Alarms(find("dpo"))
    alarms.look(0, HEALTHY)
    found = alarms.look(1, {"loss": math.nan, "eval_chosen_gain": -3.0, "eval_rejected_gain": -9.0})
    found += run(Alarms(find("dpo")), 9, accuracy=1.0, loss=1e-9, grad_norm=0.0, lr=0.0)
    found += alarms.look(
        2, {"sample_surprisal": 0.1, "sample_repetition": 0.9, "sample_ends": 0.0, "sample_length": 900.0}
    )
    assert len(found) == 9
    for alarm in found:
        assert "  " not in alarm.sentence
        assert alarm.sentence[-1] == "."
        assert "\n" not in alarm.sentence + alarm.mend
        assert alarm.mend


def tokens(ids: list[int], mask: list[bool], ends: bool = True) -> Tokens:
    return Tokens(np.array(ids, np.int32), np.array(mask, np.bool_), ends)


WORDS = {1: "<s>", 2: "</s>", 3: "Hi", 4: " é\u2028", 5: "\n", 6: "</script>"}
SPELL = SimpleNamespace(decode=lambda ids, skip_special_tokens: "".join(WORDS[i] for i in ids))


def test_offending_rows_are_written_worst_first_with_what_was_trained_on(tmp_path: Path) -> None:
    rows = [
        Row((tokens([1, 3, 4, 2], [False, False, True, True]), tokens([1, 3, 6], [False, False, True], False)),
            index=11, source="prefs.jsonl:12"),
        Row((tokens([1, 3, 5, 3, 4, 2], [False, True, False, False, True, True]),), 0.5, True, 12, "prefs.jsonl:13"),
        Row((tokens([1], [False]),), index=13),
        Row((tokens([], []),), index=14),
    ]  # fmt: skip
    path = tmp_path / "deep" / "rows.jsonl"
    write_offending_rows(path, rows, SPELL, [0.3, math.nan, math.inf, 7.0])
    lines = path.read_text(encoding="utf-8").split("\n")
    read = [json.loads(line) for line in lines[:-1]]
    assert lines[-1] == ""
    assert [r["index"] for r in read] == [12, 13, 14, 11]
    assert [r["loss"] for r in read] == ["nan", "inf", 7.0, 0.3]
    assert [r["source"] for r in read] == ["prefs.jsonl:13", None, None, "prefs.jsonl:12"]
    assert read[0]["weight"] == 0.5
    assert read[0]["desirable"] is True
    assert read[0]["sequences"][0]["pieces"] == [
        {"trained": False, "text": "<s>"},
        {"trained": True, "text": "Hi"},
        {"trained": False, "text": "\nHi"},
        {"trained": True, "text": " é\u2028</s>"},
    ]
    assert read[1]["sequences"][0] == {
        "tokens": 1, "response_tokens": 0, "ends": True, "pieces": [{"trained": False, "text": "<s>"}],
    }  # fmt: skip
    assert read[2]["sequences"][0]["pieces"] == []
    assert [s["ends"] for s in read[3]["sequences"]] == [True, False]
    assert [p.name for p in path.parent.iterdir()] == ["rows.jsonl"]


def test_offending_rows_need_a_loss_each(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 rows but 2 losses"):
        write_offending_rows(tmp_path / "x", [Row((tokens([1], [False]),))], SPELL, [1.0, 2.0])
    assert list(tmp_path.iterdir()) == []
