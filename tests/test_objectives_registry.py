"""The register: what the decorator accepts, what it refuses, and how a method is found."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import boresight.objectives as room
from boresight.objectives import PairLogProbs, ResponseLogProbs, _registry, find, objective, objectives
from boresight.training.recipe import Recipe

FOLDER = Path(room.__file__).parent
FILES = sorted(p for p in FOLDER.rglob("*.py") if not p.name.startswith("_"))


@pytest.fixture
def empty_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations of a test are forgotten after it."""
    objectives()
    monkeypatch.setattr(_registry, "_REGISTER", dict(_registry._REGISTER))


def test_methods_of_the_first_issue_are_there() -> None:
    wanted = {"sft", "dpo", "ipo", "ipo-mean", "slic-hinge", "simpo", "orpo", "kto", "rdpo-robust", "bt-reward"}
    assert wanted <= set(objectives())


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_one_file_is_one_method(path: Path) -> None:
    """A file holds one decorated function, named as the file, with the file's name as its id.

    An id that cannot be a name in Python, since it begins with a digit, is that of a function with a name of its own.
    """
    functions = [
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.decorator_list
    ]
    assert [f.name for f in functions] == [path.stem]
    assert path.stem.replace("_", "-") in objectives() or [
        id for id, known in objectives().items() if known.function.__name__ == path.stem and id[0].isdigit()
    ]


@pytest.mark.parametrize("id", objectives())
def test_function_is_reachable_by_its_own_name(id: str) -> None:
    known = objectives()[id]
    assert getattr(room, known.function.__name__) is known.function
    assert known.function.__name__ == id.replace("-", "_") or id[0].isdigit()


@pytest.mark.parametrize("id", objectives())
def test_hyperparameters_do_not_collide_with_recipe_options(id: str) -> None:
    """On the command line both are plain words: beta=0.1 lr=1e-6."""
    reserved = {
        *("method", "model", "data", "eval_data", "out", "reference", "lr", "batch", "micro_batch", "max_steps"),
        *("epochs", "seed", "dtype", "schedule", "warmup", "clip", "weight_decay", "save_every", "eval_every"),
        *("log_every", "max_length", "truncation", "template", "spans", "resume", "json", "quiet", "recipe", "nll"),
        *Recipe.model_fields,
    }
    assert not set(objectives()[id].hyperparameters) & reserved


def test_this_floor_imports_torch_only() -> None:
    """Importing every objective loads none of the heavy libraries."""
    code = (
        "import sys; import boresight.objectives as o; o.objectives();"
        "print([m for m in ('transformers','datasets','peft','accelerate','pydantic','sklearn','scipy')"
        " if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'dpoo'"):
        _ = room.dpoo


def test_find_by_id_and_by_dotted_path() -> None:
    assert find("dpo") is objectives()["dpo"]
    assert find("boresight.objectives.preference.dpo.dpo") is objectives()["dpo"]
    with pytest.raises(KeyError):
        find("dpoo")
    with pytest.raises(ModuleNotFoundError):
        find("no_such_module.loss")
    with pytest.raises(AttributeError):
        find("math.no_such_function")
    with pytest.raises(TypeError, match="not decorated"):
        find("math.sqrt")


@pytest.mark.usefixtures("empty_page")
def test_decorator_reads_the_signature_and_returns_the_function() -> None:
    def mine(pairs: PairLogProbs, *, beta: float = 0.2, deep: bool = False, times: int = 3, how: str = "so") -> Tensor:
        """Mine.

        Returns zeros.
        """
        return beta * pairs.margin()

    assert objective("mine", needs=("reference",), sources={"beta": "a guess"}, at_zero=lambda beta: beta)(mine) is mine
    known = find("mine")
    assert known.takes is PairLogProbs
    assert known.summary == "Mine."
    assert [(h.name, h.kind, h.default, h.source) for h in known.hyperparameters.values()] == [
        ("beta", float, 0.2, "a guess"),
        ("deep", bool, False, ""),
        ("times", int, 3, ""),
        ("how", str, "so", ""),
    ]
    assert known.closed_form() == 0.2
    assert known.closed_form(beta=0.7) == 0.7
    pairs = PairLogProbs.from_sums(*(torch.tensor([v]) for v in (2.0, 1.0, 0.0, 0.0)))
    assert mine(pairs, beta=2.0).tolist() == [2.0]


@pytest.mark.usefixtures("empty_page")
def test_what_cannot_be_trained_is_refused() -> None:
    def good(pairs: PairLogProbs, *, beta: float = 0.1) -> Tensor:
        return beta * pairs.margin()

    def no_type(pairs, *, beta: float = 0.1) -> Tensor:  # type: ignore[no-untyped-def]
        return pairs

    def two(pairs: PairLogProbs, more: ResponseLogProbs) -> Tensor:
        return pairs.margin()

    def no_default(pairs: PairLogProbs, *, beta: float) -> Tensor:
        return beta * pairs.margin()

    def odd_kind(pairs: PairLogProbs, *, betas: tuple[float, ...] = (0.1,)) -> Tensor:
        return pairs.margin()

    with pytest.raises(ValueError, match="unknown needs"):
        objective("a", needs=("magic",))(good)
    with pytest.raises(ValueError, match="gamma"):
        objective("a", sources={"gamma": "nowhere"})(good)
    for function in (no_type, two):
        with pytest.raises(TypeError, match="one positional argument"):
            objective("a")(function)
    with pytest.raises(TypeError, match="beta must be keyword-only"):
        objective("a")(no_default)
    with pytest.raises(TypeError, match="betas must be a float"):
        objective("a")(odd_kind)
    with pytest.raises(ValueError, match="dpo is registered already"):
        objective("dpo")(good)
    assert "a" not in objectives()


def test_closed_form_is_none_where_there_is_none() -> None:
    assert objectives()["slic-hinge"].closed_form() is None
