"""Code of papers outside the objectives, found by its mark `@paper("ID")` without importing it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MARK = "@paper("


@dataclass(frozen=True, slots=True)
class Function:
    """A marked function or class: how it is imported and called, what its docstring says, and where it stands."""

    module: str
    name: str
    signature: str
    doc: str
    file: str

    def to_dict(self) -> dict[str, str]:
        """For JSON."""
        return {
            "import": f"from {self.module} import {self.name}",
            "signature": self.signature,
            "doc": self.doc,
            "file": self.file,
        }


def functions() -> dict[str, tuple[Function, ...]]:
    """Id -> what is marked as that paper's code, in the order of rooms, files and lines."""
    return _found(Path(__file__).parents[1])


@cache
def _found(package: Path) -> dict[str, tuple[Function, ...]]:
    found: dict[str, tuple[Function, ...]] = {}
    for path in sorted(package.rglob("*.py")):
        text = path.read_text("utf-8")
        if MARK not in text or path.name == "paper.py":
            continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                for id in _marks(node):
                    found[id] = (*found.get(id, ()), _function(node, path, package))
    return found


def _marks(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    calls = [d for d in node.decorator_list if isinstance(d, ast.Call) and getattr(d.func, "id", "") == "paper"]
    given = [call.args[0] for call in calls if call.args]
    return [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]


def _function(node: ast.FunctionDef | ast.ClassDef, path: Path, package: Path) -> Function:
    parts = path.relative_to(package.parent).with_suffix("").parts
    if isinstance(node, ast.ClassDef):
        made = (n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
        init = next(made, None)
        arguments = ast.unparse(init.args).removeprefix("self").removeprefix(", ") if init else "..."
        signature = f"{node.name}({arguments})"
    else:
        gives = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        signature = f"{node.name}({ast.unparse(node.args)}){gives}"
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Function(
        module, node.name, signature, ast.get_docstring(node) or "", path.relative_to(package.parent).as_posix()
    )
