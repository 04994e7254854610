"""The walk-through of CONTRIBUTING.md, followed to the letter in a package outside boresight."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

import oracles
from boresight.objectives import Objective, PairLogProbs, _registry, find, objectives
from boresight.training.method import find_objective
from boresight.training.recipe import Recipe
from objective_checks import CHECKS

DOCUMENT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATH = "their_package.my_squared_hinge.my_squared_hinge"


def block(name: str) -> str:
    found = re.findall(rf"<!-- test: {name} -->\n```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    assert len(found) == 1, f"CONTRIBUTING.md has {len(found)} code blocks marked {name!r}"
    return found[0]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Objective:
    """Step 1 and 2 of the walk-through, outside the package."""
    objectives()
    monkeypatch.setattr(_registry, "_REGISTER", dict(_registry._REGISTER))
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "my_squared_hinge.py").write_text(block("objective"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("their_package", "their_package.my_squared_hinge"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    names: dict[str, object] = dict(vars(oracles))
    exec(block("oracle"), names)
    monkeypatch.setattr(oracles, "my_squared_hinge", names["my_squared_hinge"], raising=False)
    return find(PATH)


@pytest.mark.parametrize("check", CHECKS)
def test_walk_through_passes_the_generic_checks(outside: Objective, check: str) -> None:
    CHECKS[check](outside)


def test_walk_through_resolves_in_the_register_the_trainer_and_a_recipe(outside: Objective) -> None:
    assert find_objective(PATH) is outside
    assert objectives()["my-squared-hinge"] is outside
    recipe = Recipe.read(method=PATH, model="m", data="d.jsonl", out="o", beta=0.3)
    assert recipe.objective is outside
    assert recipe.hyperparameters() == {"beta": 0.3}


def test_walk_through_says_what_it_computes(outside: Objective) -> None:
    m = torch.tensor([0.0, 5.0, 10.0, -10.0], dtype=torch.float64)
    zero = torch.zeros_like(m)
    losses = outside.function(PairLogProbs.from_sums(m, zero, zero, zero), beta=0.1)
    assert losses.tolist() == [1.0, 0.25, 0.0, 4.0]


def test_commands_of_the_document_are_targets_of_the_makefile() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", DOCUMENT))
    assert named
    assert named <= targets
