"""Pictures judged pairwise on several criteria, each with a verdict of its own, and ratings from the verdicts.

Source: Wu et al. 2024, "GPT-4V(ision) is a Human-Aligned Evaluator for Text-to-3D Generation": a multimodal model sees
pictures of two results from several sides, compares them on given criteria, several times, and ratings are fitted to
the verdicts by maximum likelihood. That the paper varies the wording between repetitions, and writes descriptions of
controlled complexity first, is left to whoever calls this. The texts of the template and the criteria are our own.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boresight.errors import InputError
from boresight.judging.endpoint import Advance
from boresight.judging.judge_ask import Judge, Ruling
from boresight.paper import paper

CRITERIA = (
    ("description", "does it show what the description asks for, all of it and nothing else"),
    ("plausibility", "is it a whole and possible thing from every side, without doubled or missing parts"),
    ("shape", "are form and small parts clean and detailed"),
    ("surface", "are colours and materials detailed, sharp and fitting"),
    ("fit", "do colours and materials lie where the shape has them"),
)
"""What the paper's five criteria look at, in our words."""
LARGEST = 20 << 20
"""Bytes of a picture."""
MAGIC = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))


@dataclass(frozen=True)
class Shown:
    """What a system made of a description: pictures of it, files."""

    prompt: str
    system: str
    images: tuple[Path, ...]


@dataclass(frozen=True)
class Verdict:
    """A comparison of two results, by place in the list of results, on all criteria; `first` was shown first."""

    first: int
    second: int
    repeat: int
    ruling: Ruling


@dataclass(frozen=True)
class Ratings:
    """Ratings of systems on one criterion, mean 0, in points; nan for all where `why` says they have none.

    wins: (systems, systems), how often the row won over the column, a tie counting for both. unread: verdicts that
    could not be read or did not come.
    """

    systems: tuple[str, ...]
    values: NDArray[np.float64]
    wins: NDArray[np.float64]
    unread: int
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ratings": dict(zip(self.systems, self.values.tolist(), strict=True)),
            "wins": self.wins.tolist(), "unread": self.unread, "why": self.why,
        }  # fmt: skip


def image_part(path: str | Path, *, within: str | Path | None = None) -> dict[str, Any]:
    """The part of a message that holds a picture, as a data URL. PNG, JPEG, GIF and WebP are known by their bytes.

    within: a folder that the file must lie in, links resolved: for paths that come from data. Raises InputError if it
    does not, cannot be read, is too large or no such picture.
    """
    path = Path(path)
    if within is not None and not path.resolve().is_relative_to(Path(within).resolve()):
        raise InputError(f"{path}: lies outside {within}", mend="pictures must lie beside the data that names them")
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such file", mend="give a picture")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", mend="check its permissions") from None
    if len(content) > LARGEST:
        raise InputError(f"{path}: more than {LARGEST >> 20} MiB for a picture", mend="make it smaller")
    kind = next((kind for magic, kind in MAGIC if content.startswith(magic)), None)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise InputError(f"{path}: no picture that is known", mend="give PNG, JPEG, GIF or WebP")
    url = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


@paper("gpt4v-text-to-3d-eval")
def compare(
    judge: Judge,
    results: Sequence[Shown],
    *,
    repeats: int = 1,
    within: str | Path | None = None,
    advance: Advance | None = None,
) -> list[Verdict]:
    """Ask about every two results of different systems for one description, in both orders, `repeats` times each.

    judge: with a template of kind criteria, such as `images`. Raises InputError for another kind, or if there is
    nothing to compare or a picture cannot be used.
    """
    if judge.template.kind != "criteria":
        raise InputError(f"template {judge.template.name} is of kind {judge.template.kind}", mend="take images")
    pairs = [
        (a, b)
        for a, one in enumerate(results)
        for b, other in enumerate(results)
        if one.prompt == other.prompt and one.system != other.system
    ]
    if not pairs or repeats < 1:
        raise InputError("nothing to compare", mend="give two systems' pictures for one description, and repeats >= 1")
    parts = [[image_part(path, within=within) for path in result.images] for result in results]
    empty = next((r for r, p in zip(results, parts, strict=True) if not p), None)
    if empty is not None:
        raise InputError(f"{empty.system}: no picture for {empty.prompt[:60]!r}", mend="give one at least")
    asked = [(a, b, k) for k in range(repeats) for a, b in pairs]
    values = []
    for a, b, repeat in asked:
        images = [_words("Pictures of result A:"), *parts[a], _words("Pictures of result B:"), *parts[b]]
        values.append(({"prompt": results[a].prompt, "images": images}, repeat))
    rulings = judge.rule(values, advance)
    return [Verdict(a, b, repeat, ruling) for (a, b, repeat), ruling in zip(asked, rulings, strict=True)]


@paper("gpt4v-text-to-3d-eval")
def ratings(results: Sequence[Shown], verdicts: Sequence[Verdict], criteria: Sequence[str]) -> dict[str, Ratings]:
    """The systems' ratings on each criterion; a verdict on one is used even where another's could not be read."""
    systems = tuple(dict.fromkeys(r.system for r in results))
    place = {system: k for k, system in enumerate(systems)}
    found = {}
    for name in criteria:
        wins, unread = np.zeros((len(systems), len(systems))), 0
        for verdict in verdicts:
            value = (verdict.ruling.parts or {}).get(name)
            if value is None:
                unread += 1
                continue
            a, b = (place[results[k].system] for k in (verdict.first, verdict.second))
            wins[a, b] += value >= 0.5
            wins[b, a] += value <= 0.5
        values, why = elo(wins)
        found[name] = Ratings(systems, values, wins, unread, why)
    return found


def elo(wins: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    """The ratings s, mean 0, that minimise sum_ij W_ij log(1 + 10^((s_j - s_i) / 400)), (systems,); and "".

    wins: (systems, systems), W_ij is how often i won over j. This is Bradley-Terry's likelihood, fitted by evalica.
    Where the systems fall into parts of which one never lost to the others, no finite ratings are the best: nan for
    all, and why. Raises ValueError if wins is not square, or has negative or infinite entries.
    """
    import evalica
    from scipy.sparse.csgraph import connected_components

    w = np.array(wins, np.float64)
    if w.ndim != 2 or w.shape[0] != w.shape[1] or not np.isfinite(w).all() or (w < 0).any():
        raise ValueError(f"wins must be square, finite and not negative, not {w.shape}")
    np.fill_diagonal(w, 0)
    n = len(w)
    if n < 2:
        return np.zeros(n), ""
    if connected_components(w > 0, directed=True, connection="strong")[0] > 1:
        return np.full(n, nan), "some systems never lost, or never won, against all the others"
    won, lost = np.nonzero(w)
    found = evalica.bradley_terry(
        won.tolist(), lost.tolist(), [evalica.Winner.X] * len(won), weights=w[won, lost].tolist(),
        tolerance=1e-12, limit=100_000,
    )  # fmt: skip
    strength = np.array([found.scores[k] for k in range(n)], np.float64)
    rated = 400 * np.log10(strength)
    return rated - rated.mean(), ""


def _words(text: str) -> Mapping[str, str]:
    return {"type": "text", "text": text}
