"""What a model folder from somebody else may not do: reach outside itself, or pretend to be what it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from boresight.errors import InputError

_POINTER = b"version https://git-lfs"
_AGAIN = "copy or download the model again"


def check_settings(name: str) -> None:
    """Raise InputError if a JSON file of the model folder is no object, or lists weights outside the folder.

    Names of the hub are left alone: its libraries check what they download. Code that comes with a model is never
    run, and pickled weights are unpickled as tensors and nothing else; both is asked for where models are loaded.
    """
    folder = Path(name)
    if not folder.is_dir():
        return
    for file in ("config.json", "adapter_config.json", "tokenizer_config.json", "tokenizer.json"):
        if (folder / file).exists():
            _object(folder / file)
    for index in sorted(folder.glob("*.index.json")):
        listed = _object(index).get("weight_map")
        if not isinstance(listed, dict):
            raise InputError(f"{index}: not a list of weights", mend=_AGAIN)
        for part in sorted({str(part) for part in listed.values()}):
            if Path(part).name != part:
                raise InputError(
                    f"{index} lists weights outside its folder: {part}", mend="do not use it: this may be an attack"
                )


def check_weights(name: str) -> None:
    """Raise InputError if safetensors in the model folder are not whole, or are not there but for a pointer."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(Path(name).glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                if file.read(len(_POINTER)) == _POINTER:
                    raise InputError(f"{path} is a pointer of Git LFS, not the weights", mend="run: git lfs pull")
            with safe_open(path, framework="pt") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: the weights are damaged: {error}", mend=_AGAIN) from None


def _object(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {str(error) or type(error).__name__}", mend=_AGAIN) from None
    if not isinstance(held, dict):
        raise InputError(f"{path} is not a JSON object", mend=_AGAIN)
    return held
