"""The threat model of SECURITY.md: models, data and templates of others run no code, open no files, learn no keys."""

from __future__ import annotations

import ast
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import boresight as bs
from bad_input import WORDS, Here
from boresight.errors import InputError

SOURCE = Path(bs.__file__).parent


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from boresight.lab.tiny import make_model

    path = tmp_path_factory.mktemp("world") / "model"
    return make_model([WORDS] * 8, path, vocab=290, hidden=32, layers=2, heads=2)


@pytest.fixture
def here(model, tmp_path, monkeypatch) -> Here:
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Here(tmp_path / "here", model, lambda: tmp_path)


def calls() -> list[tuple[str, ast.Call]]:
    trees = [(path, ast.parse(path.read_text("utf-8"))) for path in sorted(SOURCE.rglob("*.py"))]
    found = [(path, node) for path, tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [(f"{path.relative_to(SOURCE)}:{node.lineno}: {ast.unparse(node.func)}", node) for path, node in found]


# What the code says


def test_nothing_is_asked_of_the_libraries_that_would_run_what_others_wrote():
    forbidden = {
        "eval", "exec", "compile", "__import__", "torch.load", "os.system", "os.popen", "pickle.load", "pickle.loads",
        "yaml.unsafe_load", "yaml.full_load", "tempfile.mktemp", "shutil.unpack_archive", "np.load", "numpy.load",
    }  # fmt: skip
    seen = calls()
    assert len(seen) > 3000, "the whole package is looked at"
    assert [where for where, _ in seen if where.split(": ")[1] in forbidden] == []
    loaders = [ast.unparse(node) for where, node in seen if where.endswith(": yaml.load")]
    assert [call for call in loaders if "Loader=_Loader" not in call] == []
    from yaml import SafeLoader

    from boresight.training.recipefile import _Loader

    assert issubclass(_Loader, SafeLoader)


def test_code_that_comes_with_a_model_is_refused_wherever_one_is_loaded():
    """Left unsaid, transformers asks at the terminal whether to run it."""
    doors = {"AutoTokenizer", "AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification", "auto"}
    found = 0
    for where, node in calls():
        name = where.split(": ")[1]
        if name.endswith((".from_pretrained", ".from_config")) and name.split(".")[0] in doors:
            found += 1
            said = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert said.get("trust_remote_code") == "False" or None in said, where
    assert found >= 5
    text = "".join(path.read_text("utf-8") for path in SOURCE.rglob("*.py"))
    assert "trust_remote_code=True" not in text
    assert '"trust_remote_code": True' not in text
    assert '"trust_remote_code": False, "weights_only": True' in text, "what is passed on by ** in load.py"


# Weights


class Touch:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def hostile(touched: Path) -> bytes:
    content = pickle.dumps({"model.norm.weight": Touch(touched)})
    pickle.loads(content)
    assert touched.exists(), "the control: it does what it is for"
    touched.unlink()
    return content


def test_pickled_weights_that_run_code_are_refused(here):
    from boresight.training.load import load

    touched = here.folder / "touched"
    folder = here.copy()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(hostile(touched))
    with pytest.raises(InputError, match="more than tensors"):
        load(str(folder))
    assert not touched.exists()


def test_pickled_weights_that_are_tensors_are_read(here):
    """The control of the refusal above."""
    from safetensors.torch import load_file

    from boresight.training.load import load

    folder = here.copy()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    state = load(str(folder)).model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in tensors.items())


def test_a_pickled_adapter_that_runs_code_is_refused(here):
    from bad_input_models import adapter
    from boresight.training.load import load

    touched = here.folder / "touched"
    folder = adapter(here)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(hostile(touched))
    with pytest.raises(InputError, match="adapter"):
        load(str(folder))
    assert not touched.exists()


def test_weights_are_not_fetched_from_outside_the_folder(here):
    from boresight.training.load import load

    folder = here.copy()
    os.replace(folder / "model.safetensors", here.folder / "elsewhere.safetensors")
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="outside its folder"):
        load(str(folder))


# Templates


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('touch touched').read() }}",
        "{{ lipsum.__globals__['os'].system('touch touched') }}",
        "{{ messages.__class__.__base__ }}",
        "{{ messages.clear() }}",
        "{{ (messages|attr('__class__')).mro() }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ raise_exception.__globals__.os }}",
        "{% include 'tokenizer_config.json' %}",
        "{% for a in range(10000000000) %}{% endfor %}",
        "{{ 'a' * 10 ** 12 }}",
    ],
)
def test_a_template_runs_no_code_and_opens_no_file(template, here):
    from boresight.data.pretrained import load_tokenizer
    from boresight.data.render import Renderer

    folder = here.copy()
    turns = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template + turns)
    examples = bs.read([{"prompt": "q", "chosen": "a", "rejected": "b"}])
    from boresight.data.rows import make_rows

    with pytest.raises(InputError, match="template"):
        make_rows(examples, Renderer(load_tokenizer(str(folder)), template="chat"), kind="pairs")
    assert not list(Path.cwd().glob("touched"))


# Data


def test_paths_in_data_are_never_opened(here):
    """A pipe that nobody writes to: to open it would wait for ever."""
    import datasets

    pipe = here.folder / "pipe.png"
    os.mkfifo(pipe)
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "source": str(pipe), "file": str(pipe), "path": str(pipe)}
    assert len(bs.read(here.rows(row))) == 1
    saved = here.folder / "saved"
    kinds = dict.fromkeys(row, datasets.Value("string")) | {
        "image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    }
    images = [{**row, "image": {"bytes": None, "path": str(pipe)}}]
    datasets.Dataset.from_list(images, features=datasets.Features(kinds)).save_to_disk(saved)
    info = json.loads((saved / "dataset_info.json").read_text())
    info["features"]["image"] = {"_type": "Image"}
    (saved / "dataset_info.json").write_text(json.dumps(info))
    assert isinstance(datasets.load_from_disk(str(saved)).features["image"], datasets.Image), "the control"
    assert bs.read(saved)[0].responses[0].text == "a"


def test_a_saved_folder_names_no_file_outside_itself(here):
    import datasets

    secret, lure = here.folder / "secret", here.folder / "lure"
    for folder, answer in ((secret, "secret"), (lure, "a")):
        datasets.Dataset.from_list([{"prompt": "q", "chosen": answer, "rejected": "b"}]).save_to_disk(folder)
    state = json.loads((lure / "state.json").read_text())
    state["_data_files"] = [{"filename": f"../secret/{next(secret.glob('*.arrow')).name}"}]
    (lure / "state.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match="outside its folder"):
        bs.read(lure)


def test_a_small_file_that_unpacks_to_a_large_row_is_refused(here, monkeypatch):
    import gzip

    from boresight.data import files

    monkeypatch.setattr(files, "LONGEST", 1 << 16)
    for name, start in (
        ("a.jsonl", b'{"prompt": "'),
        ("a.json", b'[{"prompt": "'),
        ("a.json", b'{"a": "'),
        ("a.csv", b'"'),
    ):
        path = here.file(f"{name}.gz", gzip.compress(start + b"x" * (1 << 22)))
        assert path.stat().st_size < 1 << 13
        with pytest.raises(InputError) as error:
            bs.read(path)
        assert name in error.value.what
        path.unlink()
    good = json.dumps({"prompt": "q", "chosen": "x" * 60_000, "rejected": "b"})
    assert len(bs.read(here.file("good.jsonl", good))) == 1, "the control: a row below the bound"


# Keys


MARK = "MARKED-KEY"
KEYS = (
    "WANDB_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
)


@pytest.mark.parametrize("fails", [False, True])
def test_keys_in_the_environment_are_nowhere_in_a_run(fails, here, tmp_path):
    keys = {name: f"{MARK}-{number}-abcdefghijklmnop" for number, name in enumerate(KEYS)}
    keys["HF_ENDPOINT"] = f"http://user:{MARK}-endpoint@127.0.0.1:9"
    line = here.train(
        model="nobody/no-such-model" if fails else here.model, trackers="tensorboard", samples=2, sample_tokens=4,
        eval_data=here.good(), eval_every=1, save_every=1,
    )  # fmt: skip
    env = os.environ | keys | {"HF_HUB_OFFLINE": "0" if fails else "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run([sys.executable, "-m", "boresight", *line], capture_output=True, env=env)
    assert done.returncode == (2 if fails else 0), done.stderr.decode()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    held = {str(path): path.read_bytes() for path in files} | {"stdout": done.stdout, "stderr": done.stderr}
    assert [name for name, content in held.items() if MARK.encode() in content] == []
    if not fails:
        names = {Path(name).name.split(".")[0] for name in held}
        assert {"recipe", "run", "metrics", "samples", "README", "events", "manifest"} <= names
        seen = [name for name, content in held.items() if b"good.jsonl" in content]
        assert len(seen) >= 3, "the control: what is looked for is found where it is"


def test_keys_in_messages_are_hidden(capsys):
    from boresight.cli import output

    key = "sk-" + "a1B2" * 8
    output.fail(InputError(f"the endpoint refused {key} at https://me:{key}@host/", mend=f"set api_key={key}"))
    told = capsys.readouterr().err
    assert key not in told
    assert "the endpoint refused <hidden> at https://<hidden>@host/" in " ".join(told.split())
    output.fail(InputError(f"refused {key}"), as_json=True)
    assert key not in capsys.readouterr().out
