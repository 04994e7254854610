"""Numbers that are not finite, found late as on a GPU: the weights never see them, and the right step is named."""

# ruff: noqa: F811  (fixtures of test_train are used by name)
from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import boresight as bs
from boresight.errors import RunError
from boresight.training import loop, prepare
from test_train import _own_cache, base, go, lines, prefs, timeless, weights  # noqa: F401  (fixtures)

CLIPPED = {"max_steps": 5, "proof": "off", "save_every": 2, "log_every": 3, "keep": 9, "micro_batch": 2}


@pytest.fixture
def lazy(monkeypatch):
    monkeypatch.setattr(prepare, "lazily", lambda optimizer, device: True)


def test_a_sound_run_is_the_same_to_the_bit(base, prefs, tmp_path, monkeypatch):
    go(base, prefs, tmp_path / "at once", **CLIPPED)
    monkeypatch.setattr(prepare, "lazily", lambda optimizer, device: True)
    go(base, prefs, tmp_path / "late", **CLIPPED)
    assert timeless(tmp_path / "at once") == timeless(tmp_path / "late")
    a, b = weights(tmp_path / "at once"), weights(tmp_path / "late")
    assert all(torch.equal(a[k], b[k]) for k in a)


def at_step(monkeypatch, bad: int, what: str):
    """Make the loss or the gradient of one step NaN; returns the weights as they were before each step."""
    import boresight.training.step as step

    real, micro_batch, before, calls = loop.train_step, step.weighted_loss, [], [0, 0]

    def train_step(job, number, *rest):
        before.append({k: v.clone() for k, v in job.model.state_dict().items()})
        calls[0], calls[1] = number, 0
        return real(job, number, *rest)

    def weighted_loss(*rest):
        loss, values, live = micro_batch(*rest)
        calls[1] += 1
        if calls[0] == bad and calls[1] == 2:
            if what == "loss":
                value, per = values["loss"]
                values["loss"] = (value * torch.nan, per)
                loss = loss * torch.nan
            else:
                loss.register_hook(lambda g: g * torch.inf)
        return loss, values, live

    monkeypatch.setattr(loop, "train_step", train_step)
    monkeypatch.setattr(step, "weighted_loss", weighted_loss)
    return before


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize(("bad", "seen"), [(0, 2), (1, 2), (2, 3), (3, 4), (4, 5)])
def test_it_stops_before_anything_is_written_and_the_weights_are_those_before(
    base, prefs, tmp_path, monkeypatch, lazy, what, bad, seen
):
    """bad: the step; seen: steps begun when it is said. Steps 3 (a line) and 2, 4 (checkpoints), 5 (the end) look."""
    before = at_step(monkeypatch, bad, what)
    held = []
    monkeypatch.setattr(loop, "fit", fitting(loop.fit, held))
    with pytest.raises(RunError, match=f"step {bad}: the {what} is not finite") as caught:
        go(base, prefs, tmp_path / "run", **CLIPPED)
    assert len(before) == seen
    after = held[0].model.state_dict()
    assert all(torch.equal(after[k], before[bad][k]) for k in after)
    assert all(torch.isfinite(v).all() for v in after.values())
    steps = held[0].optimizer.state.values()
    assert {float(s["step"]) for s in steps} <= {float(bad)}
    written = next((tmp_path / "run").glob("offending-rows-*.jsonl"))
    assert written.name == f"offending-rows-step-{bad}.jsonl"
    assert str(written) in caught.value.what
    rows = [json.loads(x) for x in written.read_text().splitlines()]
    assert len(rows) == (2 if what == "loss" else 8)
    for folder in (tmp_path / "run" / "checkpoints").glob("step-*"):
        assert int(folder.name[-1]) <= bad
        assert all(torch.isfinite(v).all() for v in load_file(folder / "model.safetensors").values())
    assert all(x["step"] <= bad for x in logged(tmp_path / "run"))


def logged(folder):
    return lines(folder) if (folder / "metrics.jsonl").exists() else []


def fitting(real, held):
    def fit(job, *rest):
        held.append(job)
        return real(job, *rest)

    return fit


def test_a_loss_that_is_infinite_with_a_sound_gradient_is_found(base, prefs, tmp_path, monkeypatch, lazy):
    (tmp_path / "steep.py").write_text(
        "import boresight as bs\nimport torch\nfrom torch import Tensor\n"
        "@bs.objective('steep')\n"
        "def steep(pairs: bs.PairLogProbs) -> Tensor:\n"
        "    return pairs.policy.margin() * 0 + torch.inf\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="step 0: the loss is not finite"):
        bs.train(method="steep.steep", model=base, data=prefs, out=tmp_path / "run", max_steps=3, proof="off",
                 samples=0, trackers="none", quiet=True)  # fmt: skip


def test_resume_is_bit_for_bit(base, prefs, tmp_path, lazy):
    import shutil

    go(base, prefs, tmp_path / "whole", **CLIPPED)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "model")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000005")
    go(base, prefs, tmp_path / "cut", resume=True, **CLIPPED)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "cut")
