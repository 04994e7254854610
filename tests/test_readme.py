"""What the README says is so: its code runs, its commands parse, what it shows of real data is what is printed."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from math import exp, log1p
from pathlib import Path

import pytest

from boresight.cli import verbs
from boresight.objectives import objectives

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.S | re.M)
CODE = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [
    line.split("#")[0].strip().removeprefix(".venv/bin/")
    for language, block in BLOCKS
    for line in block.splitlines()
    if not language and line.removeprefix(".venv/bin/").startswith("boresight ")
]


def test_the_mathematics_runs_as_it_stands():
    scope: dict = {}
    exec(next(c for c in CODE if "from_sums" in c), scope)
    margins = [(-5.0 - -6.0) - (-5.5 - -5.5), (-7.0 - -4.0) - (-6.0 - -5.0)]
    assert scope["loss"].tolist() == pytest.approx([log1p(exp(-0.1 * m)) for m in margins])


def test_the_method_of_ones_own_is_registered_by_running_its_code(monkeypatch):
    from boresight.objectives import PairLogProbs, _registry

    monkeypatch.setattr(_registry, "_REGISTER", dict(_registry._REGISTER))
    scope = {"__name__": "readme"}
    # The register reads annotations, which are looked up in the function's module.
    exec(compile(next(c for c in CODE if "@objective" in c), "README.md", "exec"), scope)
    import torch

    one = torch.ones(1)
    loss = scope["my_loss"](PairLogProbs.from_sums(one, one, one, one), slope=2.0)
    assert loss.tolist() == pytest.approx([log1p(1.0)])
    assert scope["my_loss"].__objective__.hyperparameters["slope"].default == 0.1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_exists(command):
    words = shlex.split(command)
    known = {name: function for name, function, _ in verbs()}
    assert words[1] in known
    options = {f"--{name.replace('_', '-')}" for name in inspect.signature(known[words[1]]).parameters}
    assert {w for w in words[2:] if w.startswith("--")} <= options


def test_there_are_commands_and_all_verbs_but_small_ones_are_told():
    assert len(COMMANDS) > 5
    for name, _, _ in verbs():
        assert f"boresight {name}" in TEXT or name == "version", name


def test_the_list_of_methods_is_the_register():
    section = TEXT.split("### Methods so far")[1].split("\n## ")[0]
    told = {
        i for row in section.splitlines() if row.startswith("| `") for i in re.findall(r"`([^`]+)`", row.split("|")[1])
    }
    assert told == set(objectives())


EXAMPLE = re.compile(r"^```\w*\n\$ (boresight check .*?)^```$", flags=re.S | re.M)
SHOWN = {
    f"{page}: {block.splitlines()[0]}": block
    for page in ("README.md", "docs/check.md")
    for block in EXAMPLE.findall((ROOT / page).read_text("utf-8"))
}


@pytest.mark.parametrize("where", SHOWN)
def test_what_check_is_shown_to_find_in_real_data_is_what_it_finds(where, real_data, tmp_path):
    """Word for word and in that order; only where a line says "..." something may be left out."""
    command, *shown = SHOWN[where].splitlines()
    environment = os.environ | {"BORESIGHT_CACHE": str(tmp_path), "COLUMNS": "80", "NO_COLOR": "1"}
    words = [sys.executable, "-m", *shlex.split(command)]
    folder = real_data / "hh-helpful"
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    pieces = [re.escape(piece.strip("\n")) for piece in re.split(r"^\.\.\.$", "\n".join(shown), flags=re.M)]
    assert re.fullmatch(r"(?:.*\n)*?".join(f"{piece}\n*" for piece in pieces), done.stdout), done.stdout


def test_real_data_is_shown():
    assert {where.partition(":")[0] for where in SHOWN} == {"README.md", "docs/check.md"}
