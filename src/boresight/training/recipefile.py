"""Recipe files: plain YAML, with what YAML allows and nobody means refused and named by its line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from boresight.catalogue.shipped import recipes
from boresight.errors import InputError

LARGEST = 1 << 20
"""Bytes of the largest recipe."""


class _Loader(yaml.SafeLoader):
    """Plain values only: no objects; no aliases, which can grow without end; no key twice, of which one would win."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            problem = f"*{event.anchor} refers to another value"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is None or key.tag != "tag:yaml.org,2002:str":
                shown = repr(name) if name is not None else "a list or mapping"
                raise yaml.MarkedYAMLError(problem=f"{shown} is no name of an option", problem_mark=key.start_mark)
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"{name} is given twice", problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_recipe(path: Path) -> dict[str, Any]:
    """The options in a YAML file, or in the recipe of that id that comes with the package.

    Raises InputError that names the line, or what else is wrong with the file.
    """
    path = path if path.exists() else recipes().get(str(path), path)
    try:
        if path.is_file() and os.stat(path).st_size > LARGEST:
            raise InputError(f"{path}: more than {LARGEST >> 20} MiB is no recipe", mend="give a YAML file")
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise InputError(f"no recipe at {path}", mend="give a YAML file, or method=... model=... data=...") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the recipe {path}: {error}", mend="give a UTF-8 YAML file") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply", mend="a recipe is a list of `key: value` lines") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        mend = "indent with spaces, not tabs" if "\\t" in problem else "a recipe is a list of `key: value` lines"
        raise InputError(f"{path}{where}: not valid YAML: {problem}", mend=mend) from None
    except ValueError as error:  # a date that there is not, a number of thousands of digits
        raise InputError(f"{path}: a value cannot be read: {error}", mend="put it in quotes") from None
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: a recipe is a list of `key: value` lines", mend="see examples/")
    return {key: _number_like(value) if isinstance(value, str) else value for key, value in loaded.items()}


def _number_like(text: str) -> Any:
    """YAML 1.1 reads 1e-6 as text; people mean the number."""
    try:
        return float(text) if any(c.isdigit() for c in text) and "e" in text.lower() else text
    except ValueError:
        return text
