"""TRL's DPOTrainer as a contestant, where TRL is installed (1.16 is what this was written for; it is no dependency).

trl-default      its own defaults: bf16 autocast (on a CPU too), gradient checkpointing, a live reference
trl-documented   what its documentation offers for speed: reference precomputed, no gradient checkpointing
trl-any          the same, and the head at response positions only, which TRL does by itself on a GPU but not on a CPU

All: no maximal length (its default of 1,024 would cut rows), rows in the order in which they stand, our learning rate
held constant, no logging. `padding_free` is not among the settings: TRL 1.16 switches it off by itself, with a warning.
On a CPU `use_cpu=True` has to be said, or its default precision is refused. Its tokens are made equal to ours by a
tokenizer of one word a token; it adds the EOS, as we do.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from contestants import Record, lora_config
from inputs import Rows, Setting

NAMES = ("trl-default", "trl-documented", "trl-any")


def run(name: str, folder: Path, setting: Setting, rows: Rows, dtype: str, record: Record) -> None:
    """Take the steps of `setting`, each as long as `Trainer` takes from the begin to the end of a step."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    if name == "trl-any" and setting.device == "cpu":
        import trl.trainer.utils as inside

        # Asked by the head alone whether to pick the response positions; the kernels ask their own module.
        inside._use_triton = lambda device: True

    losses: list[Any] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            record.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            record.stop()

    class Watched(DPOTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            losses.append(loss.detach())
            if not record.first:
                ids, mask = inputs["input_ids"], inputs["completion_mask"].bool()
                whole = inputs["attention_mask"].bool()
                sums = [whole.sum(), mask.sum(), ids[whole].sum(), ids[mask].sum()]
                means = [self._metrics["train"][f"logps/{side}"][-1] for side in ("chosen", "rejected")]
                record.first = {"log-probs": means, "tokens": [int(x) for x in sums]}
            return loss

        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    with tempfile.TemporaryDirectory() as scratch:
        words: dict[str, Any] = {}
        if name != "trl-default":
            words = {"precompute_ref_log_probs": True, "gradient_checkpointing": False, "bf16": dtype == "bf16"}
        config = DPOConfig(
            output_dir=scratch,
            per_device_train_batch_size=setting.batch,
            max_steps=setting.steps,
            learning_rate=setting.lr,
            lr_scheduler_type="constant",
            beta=setting.beta,
            max_length=None,
            report_to="none",
            use_cpu=setting.device == "cpu",
            dataloader_pin_memory=setting.device != "cpu",
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            **words,
        )
        trainer = Watched(
            AutoModelForCausalLM.from_pretrained(folder / "model"),
            args=config,
            train_dataset=Dataset.from_json(str(folder / "rows.jsonl"), cache_dir=scratch),
            processing_class=AutoTokenizer.from_pretrained(folder / "model"),
            callbacks=[Clock()],
            peft_config=lora_config() if setting.method == "lora" else None,
        )
        trainer.train()
    record.losses = [float(loss) for loss in losses]
