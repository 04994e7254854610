"""Training in stages: several runs, each of which starts from what the one before it has made.

    method: sdpo-stepwise
    stages: 3                      # three equal parts of the data, one after the other

    stages:                        # or what each stage has of its own, on top of the rest of the recipe
      - {method: sft}
      - {method: dpo, reference: "@1"}

A stage is an ordinary run in OUT/stage-K. Its model is the one before it, unless it says otherwise, and so is its
reference, where the method has one. "@K" names what stage K has made, "@0" the model that the first one starts from;
in `model`, `reference` and `references`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from boresight.catalogue.shipped import recipes as shipped
from boresight.errors import InputError
from boresight.training.extra import REFERRED
from boresight.training.method import find_objective
from boresight.training.recipe import Recipe
from boresight.training.recipefile import read_recipe

NAMED = ("model", "reference", "references")
"""Where "@K" may stand."""


def split(source: Any, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The words that all stages share, and those of each; no stages where the recipe has none.

    Raises InputError for stages that are neither a number nor a list of mappings.
    """
    if isinstance(source, Recipe):
        return {}, []
    options = {k.replace("-", "_"): v for k, v in options.items()}
    if source is None and str(options.get("method")) in shipped():
        source = shipped()[options.pop("method")]  # a recipe that comes with the package; it says what it trains by
    base = read_recipe(Path(source)) if isinstance(source, str | Path) else dict(source or {})
    words = base | options
    stages = words.pop("stages", None)
    if stages is None:
        return words, []
    if isinstance(stages, int) and not isinstance(stages, bool) and stages >= 1:
        return words, [{"part": f"{k}/{stages}"} for k in range(1, stages + 1)]
    if not isinstance(stages, list) or not stages or not all(isinstance(s, Mapping) for s in stages):
        raise InputError(
            f"option stages={stages!r}: a number of parts of the data, or a list of what each stage has of its own",
            mend="for example stages=3",
        )
    return words, [dict(stage) for stage in stages]


def recipes(words: Mapping[str, Any], stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The words of each stage's run, with models and references worked out; all are tried before any is run.

    Raises InputError for what a recipe refuses, with the stage, and for "@K" of a stage that comes later.
    """
    out = Path(str(words.get("out") or ""))
    found = []
    for k, own in enumerate(stages, 1):
        mine = {**words, **own, "out": str(out / f"stage-{k}")}
        try:
            if "model" not in own:
                mine["model"] = f"@{k - 1}" if k > 1 else words.get("model")
            if k > 1 and mine.get("reference") is None and mine.get("method"):
                needs = set(find_objective(str(mine["method"])).needs)
                if needs & REFERRED:
                    mine["reference"] = "start"
            for key in NAMED:
                if mine.get(key) is not None:
                    mine[key] = _resolved(key, str(mine[key]), k, out, words)
            Recipe.read(mine)
        except InputError as error:
            raise InputError(f"stage {k}: {error.what}", mend=error.mend) from None
        found.append(mine)
    return found


def run_all(
    words: Mapping[str, Any], stages: list[dict[str, Any]], train: Callable[..., Any], *, resume: bool, **how: Any
) -> Any:
    """Run the stages one after the other; returns the last one's run. resume: those that are finished are kept.

    train: as `boresight.train`. Raises InputError where OUT is there already and is not to be resumed.
    """
    made = recipes(words, stages)
    if not resume and any(Path(one["out"]).exists() for one in made):
        raise InputError(f"{words['out']} holds stages already", mend="choose another out, or go on with --resume")
    run = None
    for one in made:
        folder = Path(one["out"])
        if _finished(folder):
            continue
        run = train(_adapters(one), resume=resume and folder.exists(), **how)
    if run is None:
        raise InputError(f"all stages of {words['out']} are finished", mend=f"the model is in {made[-1]['out']}/model")
    return run


def _finished(folder: Path) -> bool:
    facts = folder / "run.json"
    if not facts.exists() or not (folder / "model").exists():
        return False
    return json.loads(facts.read_text(encoding="utf-8")).get("state") == "finished"


def _resolved(key: str, value: str, stage: int, out: Path, words: Mapping[str, Any]) -> str:
    """Every "@K" of a value by what it stands for."""
    parts = []
    for part in value.split(",") if key == "references" else [value]:
        name = part.strip()
        if not name.startswith("@"):
            parts.append(name)
            continue
        number = name[1:]
        if not number.isdigit() or int(number) >= stage:
            raise InputError(f"{key}={name} names no stage before this one", mend=f"@0 to @{stage - 1} are there")
        parts.append(str(words.get("model")) if number == "0" else str(out / f"stage-{number}" / "model"))
    return ",".join(parts)


def _adapters(words: Mapping[str, Any]) -> dict[str, Any]:
    """References that earlier stages left as adapters are named as such, now that they are there."""
    known = dict(words)
    for key in ("reference", "references"):
        if known.get(key):
            names = str(known[key]).split(",")
            known[key] = ",".join(
                f"adapter:{n}" if (Path(n) / "adapter_config.json").is_file() else n for n in map(str.strip, names)
            )
    return known
