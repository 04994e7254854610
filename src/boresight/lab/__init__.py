"""The lab: small worlds whose gold reward is known, so that truth is computed and not judged.

    from boresight.lab import LanguageWorld, Knobs, ModelSampler, base_model, measure

    world = LanguageWorld(Knobs(label_noise=0.35))
    base = ModelSampler(base_model("llama"))                # pre-trained in a quarter of a minute, then cached
    train = world.preferences(base, 600, seed=0)            # Examples, as any data
    print(measure(world, base).reward)                      # .. +/- .., by the gold program

Beside the language, which is measured by sampling, two worlds in which all is exact and many seeds train at once:
`TabularWorld` (tabular.py) and `TokenWorld` (tokens.py).

For claims, tests and the demo; nothing that users build on imports it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_WHERE = {
    "Knobs": "language",
    "LanguageWorld": "language",
    "Prompt": "gold",
    "Taste": "gold",
    "ModelSampler": "preferences",
    "Writers": "preferences",
    "Sampler": "preferences",
    "Measured": "measures",
    "measure": "measures",
    "sampled_kl": "measures",
    "base_model": "pretrain",
    "make_model": "tiny",
    "TabularWorld": "tabular",
    "TabularPolicy": "tabular",
    "fit": "tabular",
    "TokenWorld": "tokens",
    "TokenPolicy": "tokens",
    "fit_tokens": "tokens",
    "Pairs": "drawn",
    "Lists": "drawn",
    "Responses": "drawn",
}

if TYPE_CHECKING:
    from boresight.lab.drawn import Lists as Lists
    from boresight.lab.drawn import Pairs as Pairs
    from boresight.lab.drawn import Responses as Responses
    from boresight.lab.gold import Prompt as Prompt
    from boresight.lab.gold import Taste as Taste
    from boresight.lab.language import Knobs as Knobs
    from boresight.lab.language import LanguageWorld as LanguageWorld
    from boresight.lab.measures import Measured as Measured
    from boresight.lab.measures import measure as measure
    from boresight.lab.measures import sampled_kl as sampled_kl
    from boresight.lab.preferences import ModelSampler as ModelSampler
    from boresight.lab.preferences import Sampler as Sampler
    from boresight.lab.preferences import Writers as Writers
    from boresight.lab.pretrain import base_model as base_model
    from boresight.lab.tabular import TabularPolicy as TabularPolicy
    from boresight.lab.tabular import TabularWorld as TabularWorld
    from boresight.lab.tabular import fit as fit
    from boresight.lab.tiny import make_model as make_model
    from boresight.lab.tokens import TokenPolicy as TokenPolicy
    from boresight.lab.tokens import TokenWorld as TokenWorld
    from boresight.lab.tokens import fit_tokens as fit_tokens

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'boresight.lab' has no attribute {name!r}")
    value = getattr(import_module(f"boresight.lab.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
