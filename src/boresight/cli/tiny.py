"""`boresight tiny`: a small untrained model, to try things on a laptop."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = "Example: [bold]boresight tiny --data prefs.jsonl --out base[/bold]"


def tiny(
    data: Annotated[str, typer.Option(help="Data whose texts the tokenizer is trained on.")],
    out: Annotated[str, typer.Option(help="Folder of the model; must be new.")],
    arch: Annotated[str, typer.Option(help="llama, qwen, t5 or bart.")] = "llama",
    vocab: Annotated[int, typer.Option(help="Tokens of the tokenizer, at most.")] = 4096,
    hidden: Annotated[int, typer.Option(min=1, help="Width.")] = 128,
    layers: Annotated[int, typer.Option(min=1, help="Depth.")] = 4,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads.")] = 4,
    seed: Annotated[int, typer.Option(help="Decides the weights.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of the data.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout.")] = False,
) -> None:
    """Make a small untrained transformers model with a tokenizer trained on your data and a chat template.

    Those with an encoder and a decoder (t5, bart) have no chat template. It knows nothing yet: teach it with
    --method sft first. It is for trying the whole way on a laptop in minutes; the same commands then take a model of
    any size.
    """
    from boresight.cli import output
    from boresight.data.read import read
    from boresight.lab.tiny import make_model
    from boresight.training.load import hush_transformers, load

    hush_transformers()
    examples = read(data, limit=limit)
    texts = (t for e in examples for t in (e.prompt_text, *(r.text for r in e.responses)))
    path = make_model(texts, out, arch=arch, vocab=vocab, hidden=hidden, layers=layers, heads=heads, seed=seed)
    model = load(str(path)).model
    count = sum(p.numel() for p in model.parameters())
    if json:
        output.emit_json({"model": str(path), "parameters": count, "vocabulary": model.config.vocab_size})
        return
    output.say(f"{path}: an untrained {arch} of {count:,} parameters, vocabulary {model.config.vocab_size:,}", "bold")
    output.say(f"next: boresight train --method sft --model {path} --data {data} --out sft lr=1e-3", "dim")
