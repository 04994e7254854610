"""The head, forward and backward, side by side: plain full logits, tiles with recomputation, fused with the loss.

    python benchmarks/head.py [--rounds 5] [--vocab 32000,151936] [--width 256,512] [--bf16] [--threads 1]

Every contestant runs in a process of its own, contestants take turns, and what is printed are medians over the rounds
of seconds and of peak memory above what the inputs need, and their ratios to plain in the same run. The loss is DPO's
on 8 pairs of about 1,500 response tokens in all; `products` is the time of the three matrix products alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

TOKENS, PAIRS = 1_500, 8


def make(vocab: int, width: int) -> tuple[Any, Any, Any, Any]:
    import torch

    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, width, requires_grad=True)
    weight = (torch.randn(vocab, width) * 0.02).requires_grad_()
    return hidden, weight, torch.randint(0, vocab, (TOKENS,)), torch.arange(TOKENS).tensor_split(PAIRS)


def pair_loss(values: Any) -> Any:
    import torch

    half = len(values) // 2
    return -torch.nn.functional.logsigmoid(0.1 * (values[:half].sum() - values[half:].sum()))


def plain(hidden: Any, weight: Any, targets: Any, pairs: Any) -> Any:
    import torch

    logits = torch.nn.functional.linear(hidden, weight).float()
    values = torch.log_softmax(logits, -1).gather(1, targets.unsqueeze(1)).squeeze(1)
    return sum(pair_loss(values[pair]) for pair in pairs)


def tiled(hidden: Any, weight: Any, targets: Any, pairs: Any) -> Any:
    from boresight.engine.head import token_log_probs

    values = token_log_probs(hidden, weight, targets)
    return sum(pair_loss(values[pair]) for pair in pairs)


def fused(hidden: Any, weight: Any, targets: Any, pairs: Any) -> Any:
    import torch

    from boresight.engine.fused import ROOM, fused_loss

    # whole pairs, up to 512 tokens or what the room takes, as a trainer groups them
    most = min(512, ROOM // weight.shape[0])
    groups: list[list[Any]] = []
    for pair in pairs:
        if groups and sum(map(len, groups[-1])) + len(pair) <= most:
            groups[-1].append(pair)
        else:
            groups.append([pair])

    def loss_of(number: int, values: Any) -> Any:
        return torch.stack([pair_loss(part) for part in values.split([len(p) for p in groups[number]])]).sum()

    return fused_loss(hidden, weight, targets, [torch.cat(group) for group in groups], loss_of)[0]


def products(hidden: Any, weight: Any, targets: Any, pairs: Any) -> None:
    """The three products of the fused form in tiles of 512 x 8192, into buffers that exist; nothing else."""
    import torch

    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        rows, words = hidden.to(dtype), weight.to(dtype)
        tile, narrow = torch.zeros(512, 8192, dtype=dtype), torch.zeros(8192, hidden.shape[1], dtype=dtype)
        wide = torch.zeros(512, hidden.shape[1], dtype=dtype)
        for part in words.split(8192):
            for some in rows.split(512):
                used = tile.view(-1)[: len(some) * len(part)].view(len(some), len(part))
                torch.mm(some, part.T, out=used)
                torch.mm(used, part, out=wide[: len(some)])
                torch.mm(used.T, some, out=narrow[: len(part)])


CONTESTANTS = {"plain": plain, "tiled": tiled, "fused": fused, "products": products}


def once(name: str, vocab: int, width: int, bf16: bool, threads: int, steps: int = 3) -> dict[str, float]:
    import torch

    torch.set_num_threads(threads)
    inputs = make(vocab, width)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # On one thread its own processor time, which other work on the machine changes less than the clock's.
    clock = time.process_time if threads == 1 else time.perf_counter
    seconds = []
    for _ in range(steps):
        started = clock()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = CONTESTANTS[name](*inputs)
        if loss is not None:
            loss.backward()
        seconds.append(clock() - started)
        inputs[0].grad = inputs[1].grad = None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": statistics.median(seconds[1:]), "peak": peak / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vocab", default="32000,151936")
    parser.add_argument("--width", default="256,512")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--contestants", default=",".join(CONTESTANTS))
    parser.add_argument("--one", choices=CONTESTANTS, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        print(json.dumps(once(words.one, int(words.vocab), int(words.width), words.bf16, words.threads)))
        return
    names = words.contestants.split(",")
    for vocab in words.vocab.split(","):
        for width in words.width.split(","):
            found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
            for _ in range(words.rounds):
                for name in names:
                    command = [sys.executable, __file__, "--one", name, "--vocab", vocab, "--width", width]
                    command += ["--threads", str(words.threads), *(["--bf16"] if words.bf16 else [])]
                    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    found[name].append(json.loads(out))
            print(f"vocabulary {vocab}, width {width}, {'bf16' if words.bf16 else 'fp32'}, {words.threads} thread(s)")
            for name in names:
                ratios = [a["seconds"] / b["seconds"] for a, b in zip(found[name], found[names[0]], strict=True)]
                seconds, peak = (statistics.median(run[key] for run in found[name]) for key in ("seconds", "peak"))
                print(
                    f"  {name:9} {seconds:7.3f} s  {peak:7.0f} MB above the inputs; {statistics.median(ratios):5.2f} "
                    f"of {names[0]}'s time ({min(ratios):.2f}-{max(ratios):.2f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
