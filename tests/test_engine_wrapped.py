"""The module that computes log-probs, wrapped by DDP and FSDP2: two processes give what one gives."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CASES = [("ddp", "llama", False), ("ddp", "llama", True), ("fsdp", "llama-tied", False), ("fsdp", "gemma3", True)]
CASES += [("fsdp-head", "gemma3", False), ("fsdp-head", "llama", True)]

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import tiny, torch, torch.distributed as dist
from boresight.engine import TokenLogProbs, logprobs, plain_logprobs, token_values

def compare(how, family, lora):
    torch.manual_seed(0)
    def make():
        model = tiny.tiny(family)
        return tiny.lora(model, target_modules=["q_proj", "lm_head"]) if lora else model
    # rank 1 has no response token in its part
    parts = [tiny.sequences([(3, 5), (7, 1), (1, 9)]), tiny.sequences([(4, 0)])]
    truth_model = make()
    plain_logprobs(truth_model, parts[0] + parts[1], 0).sum().sum().backward()
    truth = {{n: p.grad for n, p in truth_model.named_parameters() if p.grad is not None}}

    module = TokenLogProbs(make(), tile=200)
    if how == "ddp":
        wrapped = torch.nn.parallel.DistributedDataParallel(module)
    else:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        mesh = init_device_mesh("cpu", (2,))
        base = module.model.get_base_model() if lora else module.model
        for layer in base.model.layers:
            fully_shard(layer, mesh=mesh)
        if how == "fsdp-head":
            fully_shard(base.lm_head, mesh=mesh)
        wrapped = fully_shard(module, mesh=mesh)
    values = logprobs(wrapped, parts[rank], 0, device=torch.device("cpu"))
    if rank == 0:
        torch.testing.assert_close(
            values.values, plain_logprobs(truth_model, parts[0], 0).values.detach(), rtol=1e-5, atol=1e-5
        )
    values.values.sum().backward()
    seen = 0
    for name, p in module.model.named_parameters():
        if not p.requires_grad:
            continue
        grad = p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad
        torch.testing.assert_close(grad * 2, truth[name], rtol=1e-4, atol=1e-5, msg=name)  # wrappers average over ranks
        seen += 1
    assert seen == len(truth)
    assert len(token_values(wrapped, parts[rank], 0, 3)) == len(parts[rank])

dist.init_process_group("gloo")
rank = dist.get_rank()
for case in {cases!r}:
    compare(*case)
    print(f"{{case}} equal", flush=True)
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> subprocess.CompletedProcess[str]:
    """All cases in one launch: starting takes longer than they do. It ends at the first that fails."""
    script = tmp_path_factory.mktemp("wrapped") / "run.py"
    script.write_text(SCRIPT.format(tests=os.path.dirname(__file__), cases=CASES))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
@pytest.mark.xdist_group("wrapped")
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_two_processes_give_the_gradients_of_one(case, launched):
    assert launched.stdout.count(f"{case} equal") == 2, launched.stderr[-3000:]
    assert launched.returncode == 0 or case != CASES[-1], launched.stderr[-3000:]
