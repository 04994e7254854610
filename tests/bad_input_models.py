"""Models, references and adapters that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

from bad_input import WORDS, Case, Here, case, plain_case


def broken(here: Here, file: str, content: str | bytes | None) -> Path:
    """A copy of the model in which one file holds something else, or with None is not there."""
    folder = here.copy()
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        here.file(f"model/{file}", content)
    return folder


def weights(here: Here) -> bytes:
    return (here.model / "model.safetensors").read_bytes()


def other_vocabulary(here: Here) -> Path:
    from boresight.lab.tiny import make_model

    return make_model([WORDS], here.folder / "other", vocab=265, hidden=32, layers=1, heads=2)


def adapter(here: Here, **settings: object) -> Path:
    """A LoRA adapter of the model, trained for no step."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = LoraConfig(**({"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"} | settings))
    folder = here.folder / "adapter"
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(here.model), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(here.model).save_pretrained(folder)
    return folder


# Folders


plain_case("a model that is missing", lambda h: h.train(model=h.folder / "no-model"), "no-model", "save_pretrained")
plain_case("a model that is a file", lambda h: h.train(model=h.file("model.bin", "x")), "model.bin", "save_pretrained")
plain_case("a model that is an empty folder", lambda h: h.train(model=h.file("m/x/y").parent.parent), "/m", "tokenizer")
plain_case(
    "a model without weights",
    lambda h: h.train(model=broken(h, "model.safetensors", None)),
    "/model",
    "model.safetensors",
)


@case("a model without tokenizer")
def _(here: Here) -> Case:
    folder = broken(here, "tokenizer.json", None)
    (folder / "tokenizer_config.json").unlink()
    return Case(here.train(model=folder), ("no usable tokenizer at", "/model"))


for _what, _content in (("broken JSON", '{"model_type": "llama"'), ("a list", "[]"), ("binary", b"\xff\0")):
    plain_case(
        f"a config.json that is {_what}",
        lambda h, content=_content: h.train(model=broken(h, "config.json", content)),
        "/model",
        "config.json",
    )
plain_case(
    "a model without config.json", lambda h: h.train(model=broken(h, "config.json", None)), "/model", "config.json"
)
plain_case("a kind of model that is unknown", lambda h: h.train(model=h.edit("config.json", model_type="gpt9")), "gpt9")
plain_case(
    "a model that does not generate",
    lambda h: h.train(model=h.edit("config.json", model_type="vit", architectures=["ViTModel"])),
    "/model",
)
plain_case(
    "weights that break off",
    lambda h: h.train(model=broken(h, "model.safetensors", weights(h)[:-1000])),
    "/model",
    "the weights are damaged",
)
plain_case(
    "weights that are no safetensors",
    lambda h: h.train(model=broken(h, "model.safetensors", b"version https://git-lfs.github.com/spec/v1\n")),
    "/model",
    "git lfs pull",
)
plain_case(
    "weights of another shape",
    lambda h: h.train(model=h.edit("config.json", intermediate_size=24)),
    "/model",
    "shape",
)
plain_case(
    "weights that lack a layer",
    lambda h: h.train(model=h.edit("config.json", num_hidden_layers=5)),
    "/model",
    "lack",
    "model.layers.2",
)
plain_case(
    "a configuration that contradicts itself",
    lambda h: h.train(model=h.edit("config.json", num_attention_heads=0)),
    "/model",
)


@case("weights that are not numbers")
def _(here: Here) -> Case:
    from safetensors.torch import load_file, save_file

    folder = here.copy()
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return Case(here.train(model=folder), ("/model", "model.norm.weight", "NaN"))


@case("weights of another kind, pickled, that would run code")
def _(here: Here) -> Case:
    import pickle

    class Touch:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (here.folder / "touched",)

    folder = broken(here, "model.safetensors", None)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Touch()))
    return Case(here.train(model=folder), ("/model", "safetensors"))


@case("a model with code of its own")
def _(here: Here) -> Case:
    folder = here.edit("config.json", model_type="mine", auto_map={"AutoConfig": "mine.Mine"})
    here.file("model/mine.py", f"open({str(here.folder / 'touched')!r}, 'w')\nclass Mine: pass\n")
    return Case(here.train(model=folder), ("/model", "code of its own"))


@case("a tokenizer with code of its own")
def _(here: Here) -> Case:
    folder = here.edit("tokenizer_config.json", tokenizer_class="Mine", auto_map={"AutoTokenizer": ["mine.Mine", None]})
    here.file("model/mine.py", f"open({str(here.folder / 'touched')!r}, 'w')\nclass Mine: pass\n")
    return Case(here.train(model=folder), ("/model", "code of its own"))


# Tokenizers and templates


plain_case(
    "a tokenizer.json that is broken",
    lambda h: h.train(model=broken(h, "tokenizer.json", '{"version": "1.0"')),
    "/model",
    "tokenizer",
)
plain_case(
    "a tokenizer larger than the model",
    lambda h: h.train(model=broken(h, "tokenizer.json", larger(h))),
    "/model",
    "the model embeds",
)


def larger(here: Here) -> str:
    held = json.loads((here.model / "tokenizer.json").read_text("utf-8"))
    held["added_tokens"] += [
        {"id": 9000 + i, "content": f"<{i}>", "special": True, "single_word": False}
        | dict.fromkeys(("lstrip", "rstrip", "normalized"), False)
        for i in range(300)
    ]
    return json.dumps(held)


plain_case(
    "a template that is no Jinja",
    lambda h: h.train(model=broken(h, "chat_template.jinja", "{% for m in messages %}{{ m.content }")),
    "template",
    "line 1",
)
plain_case(
    "a template that reaches for code",
    lambda h: h.train(model=broken(h, "chat_template.jinja", HOSTILE)),
    "template",
    "unsafe",
)
HOSTILE = "{{ ''.__class__.__mro__[1].__subclasses__() }}{% for m in messages %}{{ m.content }}{% endfor %}"
plain_case(
    "a template that refuses every row",
    lambda h: h.train(model=broken(h, "chat_template.jinja", "{{ raise_exception('users only') }}")),
    "template",
    "users only",
)
plain_case(
    "a template that writes no answers",
    lambda h: h.train(model=broken(h, "chat_template.jinja", "{% for m in messages %}.{% endfor %}")),
    "template",
)
plain_case(
    "the chat template of a model that has none",
    lambda h: h.train(model=broken(h, "chat_template.jinja", None), template="chat"),
    "template=chat",
    "use auto or plain",
)


# References and adapters


plain_case(
    "a reference of another vocabulary",
    lambda h: h.train(reference=other_vocabulary(h)),
    "/other",
    "the policy",
    "use a reference with the policy's tokenizer",
)
plain_case("a reference that is missing", lambda h: h.train(reference=h.folder / "no"), "/no", "save_pretrained")
plain_case(
    "the base of a model that has none", lambda h: h.train(reference="base"), "reference=base", "reference=start"
)
plain_case("an adapter of a model that has none", lambda h: h.train(reference="adapter:x"), "reference=adapter:x")
plain_case(
    "an adapter without a reference",
    lambda h: h.train(model=adapter(h), adapter="lora"),
    "the reference is not obvious",
    "reference=start",
)
plain_case("an adapter where all weights are trained", lambda h: h.train(model=adapter(h)), "/adapter", "adapter=lora")
plain_case(
    "targets that match nothing",
    lambda h: h.train(adapter="lora", lora_targets="nothing"),
    "lora_targets=nothing",
    "q_proj",
)
plain_case("an adapter in place of a reference", lambda h: h.train(reference=adapter(h)), "reference=adapter:")


@case("an adapter whose base is missing")
def _(here: Here) -> Case:
    folder = adapter(here)
    gone = str(here.folder / "gone")
    here.edit("adapter_config.json", "adapter", base_model_name_or_path=gone)
    return Case(here.train(model=folder, adapter="lora"), ("/gone", "/adapter"))


@case("an adapter whose settings are broken")
def _(here: Here) -> Case:
    folder = adapter(here)
    here.file("adapter/adapter_config.json", "{")
    return Case(here.train(model=folder, adapter="lora"), ("/adapter", "adapter_config.json"))


@case("an adapter without weights")
def _(here: Here) -> Case:
    folder = adapter(here)
    (folder / "adapter_model.safetensors").unlink()
    return Case(here.train(model=folder, adapter="lora"), ("/adapter", "adapter_model.safetensors"))


@case("an adapter of another model")
def _(here: Here) -> Case:
    folder = adapter(here)
    here.edit("adapter_config.json", "adapter", base_model_name_or_path=str(other_vocabulary(here)), r=7)
    return Case(here.train(model=folder, adapter="lora"), ("/adapter",))


plain_case(
    "a model by a name that the hub cannot be asked for",
    lambda h: h.train(model="nobody/no-such-model"),
    "nobody/no-such-model",
    env={"HF_HUB_OFFLINE": "1"},
    seconds=15,
)
