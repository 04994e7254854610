"""One DPO step, side by side: plain (all logits, live reference), Boresight as it is, and TRL where it is installed.

    python benchmarks/dpo_step.py [--rounds 3] [--steps 3] [--vocab 32000] [--mix balanced] [--contestants plain,ours]

Each contestant runs in a process of its own (peak memory is a process's), contestants take turns, and what is printed
are medians and their ratios in the same run. Random Llama-type model, synthetic pairs with log-normal lengths.
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

MIXES = {"balanced": (140, 90), "long-prompt": (450, 45), "long-response": (60, 260)}
"""Median lengths of prompt and response in tokens."""
PAIRS = 8


def make_model(vocab: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab,
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=8192,
        )
    )


def make_pairs(mix: str, vocab: int, batches: int) -> list[list[tuple[Any, Any]]]:
    """For each batch its pairs of (chosen, rejected) `Tokens` behind one prompt."""
    import numpy as np

    from boresight.data.tokens import Tokens

    rng = np.random.default_rng(0)
    prompt_median, response_median = MIXES[mix]

    def length(median: int) -> int:
        return int(np.clip(rng.lognormal(np.log(median), 0.5), 4, 4 * median))

    def pair() -> tuple[Any, Any]:
        prompt = rng.integers(5, vocab, length(prompt_median))
        sides = []
        for _ in range(2):
            response = rng.integers(5, vocab, length(response_median))
            ids = np.concatenate([prompt, response]).astype(np.int32)
            sides.append(Tokens(ids, np.arange(len(ids)) >= len(prompt), True))
        return sides[0], sides[1]

    return [[pair() for _ in range(PAIRS)] for _ in range(batches)]


def plain(vocab: int, mix: str, steps: int) -> list[float]:
    """What a first implementation does: padded rows, all logits in fp32, a second model for the reference."""
    import torch

    from boresight.engine.padded import plain_logprobs
    from boresight.objectives import PairLogProbs, PairSide, dpo

    policy, reference = make_model(vocab), make_model(vocab).requires_grad_(False)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-5)
    seconds = []
    for pairs in make_pairs(mix, vocab, steps + 1):
        started = time.perf_counter()
        both = [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]
        sides = []
        for model in (policy, reference):
            values = plain_logprobs(model, both, 0)
            halves = torch.arange(2 * PAIRS).split(PAIRS)
            sides.append(PairSide(*(values.select(half) for half in halves)))
        dpo(PairLogProbs(*sides)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def ours(vocab: int, mix: str, steps: int) -> list[float]:
    """Boresight's padded path: head at response positions in tiles, reference values from the store."""
    import tempfile

    import torch

    from boresight.engine.padded import TokenLogProbs, logprobs, token_values
    from boresight.engine.store import ReferenceStore
    from boresight.objectives import PairLogProbs, PairSide, dpo

    policy = make_model(vocab)
    module = TokenLogProbs(policy)
    batches = make_pairs(mix, vocab, steps + 1)
    store = ReferenceStore(tempfile.mkdtemp(), "benchmark")
    store.fill((t for pairs in batches for pair in pairs for t in pair), lambda some: token_values(module, some, 0, 8))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-5)
    seconds = []
    for pairs in batches:
        started = time.perf_counter()
        sides = [[pair[side] for pair in pairs] for side in (0, 1)]
        both = sides[0] + sides[1]
        values, halves = logprobs(module, both, 0), torch.arange(2 * PAIRS).split(PAIRS)
        policy_side = PairSide(*(values.select(half) for half in halves))
        dpo(PairLogProbs(policy_side, PairSide(*(store.get(side) for side in sides)))).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def trl(vocab: int, mix: str, steps: int) -> list[float]:
    """TRL's DPOTrainer in fp32 without gradient checkpointing, live reference: its own defaults otherwise."""
    import tempfile

    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    words = {f"w{i}": i for i in range(vocab)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w3"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w3", eos_token="w2", pad_token="w0")

    def text(ids: Any) -> str:
        return " ".join(f"w{i}" for i in ids)

    rows = [
        {
            "prompt": text(chosen.ids[~chosen.mask]) + " ",
            "chosen": text(chosen.ids[chosen.mask]),
            "rejected": text(rejected.ids[rejected.mask]),
        }
        for pairs in make_pairs(mix, vocab, steps + 1)
        for chosen, rejected in pairs
    ]
    folder = tempfile.mkdtemp()
    make_model(vocab).save_pretrained(folder)
    from transformers import AutoModelForCausalLM

    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.started)

    config = DPOConfig(
        output_dir=folder + "/out",
        per_device_train_batch_size=PAIRS,
        max_steps=steps + 1,
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        report_to="none",
        use_cpu=True,
        logging_steps=1000,
        save_strategy="no",
    )
    model = AutoModelForCausalLM.from_pretrained(folder)
    DPOTrainer(
        model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[Clock()]
    ).train()
    return seconds[1:]


CONTESTANTS = {"plain": plain, "ours": ours, "trl": trl}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--mix", choices=MIXES, default="balanced")
    parser.add_argument("--contestants", default="plain,ours")
    parser.add_argument("--one", choices=CONTESTANTS, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        seconds = CONTESTANTS[words.one](words.vocab, words.mix, words.steps)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("\n" + json.dumps({"seconds": seconds, "peak": peak}))
        return
    names = words.contestants.split(",")
    found: dict[str, list[dict[str, Any]]] = {n: [] for n in names}
    for turn in range(words.rounds):
        for name in names:
            command = [sys.executable, __file__, "--one", name, "--steps", str(words.steps)]
            command += ["--vocab", str(words.vocab), "--mix", words.mix]
            out = subprocess.run(command, capture_output=True, text=True, check=False)
            if out.returncode:
                sys.exit(f"{name} failed:\n{out.stderr[-2000:]}")
            found[name].append(json.loads(out.stdout.strip().splitlines()[-1]))
            print(f"round {turn + 1}: {name} {statistics.median(found[name][-1]['seconds']):.2f} s", file=sys.stderr)
    print(f"{'contestant':12} {'s/step':>8} {'ratio':>14} {'peak MB':>9} {'ratio':>6}")
    first = found[names[0]]
    for name in names:
        medians = [statistics.median(r["seconds"]) for r in found[name]]
        ratios = sorted(statistics.median(a["seconds"]) / m for a, m in zip(first, medians, strict=True))
        peak = statistics.median(r["peak"] for r in found[name])
        base = statistics.median(r["peak"] for r in first)
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        print(f"{name:12} {statistics.median(medians):8.2f} {spread:>14} {peak:9.0f} {base / peak:6.2f}")


if __name__ == "__main__":
    main()
