"""The slow twin: its gradients against plain code, its rate, what is saved of it, and what it refuses."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import logsigmoid

import boresight as bs
from boresight.engine.adapters import active_adapters
from boresight.engine.fingerprint import adapter_tensors
from boresight.errors import InputError
from boresight.training.microbatch import ready
from boresight.training.twin import NAME
from proofs import failing, job_of, lines_of, save_family, write_prefs

WORDS = {"method": "ofs-dpo", "adapter": "lora", "lora_rank": 2}
RUN = WORDS | {"batch": 4, "samples": 0, "trackers": "none", "log_every": 1, "quiet": True, "lr": 1e-2}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_family("llama", tmp_path_factory.mktemp("base") / "model", initializer_range=0.1)


@pytest.fixture(scope="module")
def prefs(tmp_path_factory):
    return write_prefs(tmp_path_factory.mktemp("data") / "prefs.jsonl", 12)


def test_each_adapter_gets_the_gradient_of_its_own_loss(base, prefs) -> None:
    """L_F for the policy's adapter and L_S for the twin's, each alone, from full logits, one sequence at a time."""
    beta, alpha = 0.5, 0.7
    job = job_of(base, prefs, beta=beta, alpha=alpha, **WORDS)
    own = active_adapters(job.model)[0]
    adapters = {name: list(adapter_tensors(job.model, name).values()) for name in (own, NAME)}
    torch.manual_seed(0)
    with torch.no_grad():  # apart from each other and from the reference
        for parameter in [*adapters[own], *adapters[NAME]]:
            parameter.add_(0.2 * torch.randn_like(parameter))
    micro = ready(job.objective, job.kept, [job.rows[i] for i in range(3)])
    total, losses, _ = job.total_loss(micro, job.context(0))
    total.backward()
    found = {name: [p.grad.clone() for p in some] for name, some in adapters.items()}
    assert active_adapters(job.model) == [own]
    assert all(p.requires_grad for some in adapters.values() for p in some)
    job.model.zero_grad()

    def margins(adapter: str | None) -> torch.Tensor:
        """Chosen minus rejected of each row; None: the base."""
        job.model.base_model.set_adapter(adapter or own)
        sums = []
        for tokens in micro.tokens:
            ids, at = torch.from_numpy(tokens.ids).long(), torch.from_numpy(tokens.mask).nonzero()[:, 0]
            if adapter is None:
                with job.model.disable_adapter(), torch.no_grad():
                    logits = job.model(input_ids=ids[None]).logits[0]
            else:
                logits = job.model(input_ids=ids[None]).logits[0]
            sums.append(logits.double().log_softmax(-1)[at - 1, ids[at]].sum())
        half = len(sums) // 2
        return torch.stack(sums[:half]) - torch.stack(sums[half:])

    def apart(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return -logsigmoid(beta * (a - b))

    with torch.no_grad():
        fast, slow, reference = margins(own), margins(NAME), margins(None)
    weights, wanted = micro.weights.double(), {}
    for name in (own, NAME):
        moving = margins(name)
        mine = apart(moving, reference)
        mine = mine + alpha * apart(moving, slow) if name == own else mine - alpha * apart(fast, moving)
        wanted[name] = torch.autograd.grad((mine * weights).sum(), adapters[name])
    torch.testing.assert_close(losses.double(), apart(fast, reference) + apart(slow, reference), rtol=1e-4, atol=1e-5)
    for name, gradients in wanted.items():
        scale = max(float(g.abs().max()) for g in gradients)
        assert scale > 1e-3
        for ours, theirs in zip(found[name], gradients, strict=True):
            torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=1e-3, atol=1e-4 * scale)


def test_the_proof_holds_and_the_twin_starts_as_a_copy(base, prefs) -> None:
    job = job_of(base, prefs, **WORDS)
    own = adapter_tensors(job.model, active_adapters(job.model)[0])
    for name, tensor in adapter_tensors(job.model, NAME).items():
        assert torch.equal(tensor, own[name])
        assert tensor is not own[name]
    lines = lines_of(job)
    assert not failing(lines), lines
    assert lines["loss at zero margin"].verdict == "holds"


def saved(folder):
    return [load_file(folder / "model" / part / "adapter_model.safetensors") for part in ("", NAME)]


def test_the_twin_goes_at_its_share_of_the_rate_and_is_saved_beside_the_policy(base, prefs, tmp_path) -> None:
    """Adam's first step moves every weight that has a gradient by the learning rate; B starts at zero."""
    bs.train(model=base, data=prefs, out=tmp_path / "run", max_steps=1, slow=0.25, warmup=0, weight_decay=0, **RUN)
    fast, slow = saved(tmp_path / "run")
    assert fast.keys() == slow.keys()
    for name in (n for n in fast if "lora_B" in n):
        assert float(fast[name].abs().max()) == pytest.approx(1e-2, rel=1e-3)
        torch.testing.assert_close(slow[name], fast[name] / 4, rtol=1e-3, atol=1e-6)


def test_resumed_is_uninterrupted(base, prefs, tmp_path) -> None:
    words = RUN | {"model": base, "data": prefs, "max_steps": 4, "save_every": 2, "keep": 9}
    bs.train(out=tmp_path / "whole", **words)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "model")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000004")
    assert (tmp_path / "cut" / "checkpoints" / "step-00000002" / NAME).is_dir()
    bs.train(out=tmp_path / "cut", resume=True, **words)
    for whole, cut in zip(saved(tmp_path / "whole"), saved(tmp_path / "cut"), strict=True):
        assert all(torch.equal(whole[name], cut[name]) for name in whole)
        assert any(bool(t.any()) for name, t in whole.items() if "lora_B" in name)


@pytest.mark.parametrize("words", [{"adapter": "none"}, {"gradient_checkpointing": True}, {"lora_targets": "lm_head"}])
def test_what_cannot_have_a_twin_is_refused(base, prefs, words) -> None:
    with pytest.raises(InputError, match=r"adapter"):
        job_of(
            base, prefs, **{k: v for k, v in WORDS.items() if words.get("adapter") != "none" or k == "method"} | words
        )
