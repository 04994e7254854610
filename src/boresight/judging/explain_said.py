"""An explanation in sentences: what can be said after correction for everything that was looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boresight.judging.explain_held import CHANCE, FEATURES

LEVEL = 0.05
MOST = 12


def probability(p: float) -> str:
    """p as it is written: < 0.001, = 0.012."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def sentences(features: Sequence[Mapping[str, Any]], held: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence for each feature that shows something, the strongest first; then what they are worth together."""
    found = [(abs(f["coefficient"]), text) for f in features if (text := _one(f))]
    told = [text for _, text in sorted(found, key=lambda one: -one[0])]
    rest = len(told) - MOST
    told = told[:MOST] + ([f"And {rest} more, in the table."] if rest > 0 else [])
    if not told:
        told = ["None of these features can be told from chance as a reason for the preferences."]
    return told + _worth(held)


def _one(f: Mapping[str, Any]) -> str | None:
    alone, joint = f["share_p_adjusted"] < LEVEL, f["p_holm"] < LEVEL
    if not (alone or joint):
        return None
    up_alone, up = f["share"]["value"] > 0.5, f["coefficient"] > 0
    size = f"{f['coefficient']:+.2f} logits [{f['low']:+.2f}, {f['high']:+.2f}], {probability(f['p_holm'])}"
    share = f["share"]
    most = share["value"] if up_alone else 1 - share["value"]
    often = f"in {100 * most:.0f}% of the {share['n']:,} pairs that differ in it ({probability(f['share_p_adjusted'])})"
    does, joined = f["more"] if up_alone else f["less"], f["more"] if up else f["less"]
    if alone and joint and up_alone == up:
        return f"The preferred response {does} {often}, also with the other features equal ({size})."
    if alone and joint:
        return f"The preferred response {does} {often}; but with the other features equal it {joined} ({size})."
    if joint:
        return f"With the other features equal, the preferred response {joined} ({size}); alone this does not show."
    return f"The preferred response {does} {often}; with the other features equal this cannot be told."


def _worth(held: Sequence[Mapping[str, Any]]) -> list[str]:
    known = {h["model"]: h for h in held}
    if FEATURES not in known:
        return ["Nothing could be held out, as all pairs answer one prompt: how far this carries is not known."]
    own, chance = known[FEATURES], known[CHANCE]
    figures = f"accuracy {own['accuracy']['value']:.3f}, log-loss {own['log_loss']['value']:.3f}"
    if own["log_loss"]["low"] > chance["log_loss"]["value"]:
        return [f"On prompts it was not fitted on this says less than chance ({figures}): it does not carry over."]
    better = own["less_than_length"]
    if better is None or own["p_holm"] is None:
        return [f"On prompts it was not fitted on: {figures} (chance: 0.500, 0.693)."]
    by = f"{better['value']:+.3f} nats [{better['low']:+.3f}, {better['high']:+.3f}], {probability(own['p_holm'])}"
    if own["p_holm"] >= LEVEL:
        return [f"On prompts it was not fitted on ({figures}) the features cannot be told from length alone ({by})."]
    word = "more" if better["value"] < 0 else "less"
    return [f"On prompts it was not fitted on ({figures}) the features say {word} than length alone ({by})."]
