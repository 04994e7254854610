"""The estimates of `check` against published examples, independent rewrites, and data whose truth is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from random import Random

import numpy as np
import pytest

from boresight.data.check import check
from boresight.data.checks import Check, Columns, Looked, Setting, checks
from boresight.data.checks._columns import share_of
from boresight.data.checks.agreement import alpha
from boresight.data.checks.cycles import Cycles, in_cycle
from boresight.data.checks.flips import confident
from boresight.data.checks.responses import refuses
from boresight.data.example import Example, Label, Pair, Response
from boresight.lab import Knobs, LanguageWorld, Writers
from boresight.lab.preferences import draw
from check_faults import clean, written

# ---- Krippendorff's alpha

# Krippendorff 2011, Computing Krippendorff's Alpha-Reliability: examples A (binary), B (nominal), C (missing values).
BINARY = ["0100000010", "1110010000"]
NOMINAL = ["aabbdcccedda", "babbbccceddd"]
MISSING = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]


def counted(observers: list[str]) -> np.ndarray:
    values = sorted({v for row in observers for v in row if v != "."})
    units = [[row[u] for row in observers if row[u] != "."] for u in range(len(observers[0]))]
    return np.array([[unit.count(v) for v in values] for unit in units], float)


@pytest.mark.parametrize(("observers", "published"), [(BINARY, 0.095), (NOMINAL, 0.692), (MISSING, 0.743)])
def test_alpha_is_the_published_one(observers: list[str], published: float) -> None:
    assert alpha(counted(observers)).value == pytest.approx(published, abs=0.0006)


def rewritten(units: list[list[str]]) -> float:
    """Alpha by the matrix of coincidences, entry by entry, as the article does it by hand."""
    values = sorted({v for unit in units for v in unit})
    together = dict.fromkeys(((a, b) for a in values for b in values), 0.0)
    for unit in units:
        for a, b in permutations(unit, 2):
            together[a, b] += 1 / (len(unit) - 1)
    total = {a: sum(together[a, b] for b in values) for a in values}
    n = sum(total.values())
    observed = sum(v for (a, b), v in together.items() if a != b)
    expected = sum(total[a] * total[b] for a in values for b in values if a != b)
    return 1 - (n - 1) * observed / expected


def test_alpha_is_that_of_another_program_and_does_not_mind_how_sides_are_named() -> None:
    rng = Random(5)
    units = [[rng.choice("ABt" if rng.random() < 0.3 else "A") for _ in range(rng.randint(2, 5))] for _ in range(80)]
    table = np.array([[u.count(v) for v in "ABt"] for u in units], float)
    assert alpha(table).value == pytest.approx(rewritten(units), abs=1e-12)
    swap = str.maketrans("AB", "BA")
    both = units + [[v.translate(swap) for v in u] for u in units]
    mirrored = alpha(table, mirrored=True)
    assert mirrored.value == pytest.approx(rewritten(both), abs=1e-12)
    some = table.copy()
    some[::2] = some[::2][:, [1, 0, 2]]  # other sides called first in half of the items
    assert alpha(some, mirrored=True).value == pytest.approx(mirrored.value, abs=1e-12)
    assert alpha(some).value != pytest.approx(alpha(table).value, abs=1e-3)  # which the plain one does mind


def test_alpha_of_nothing() -> None:
    nothing = alpha(np.array([[3.0, 0, 0], [2, 0, 0]]))
    assert np.isnan(nothing.value)
    assert (nothing.low, nothing.high) == (-1, 1)


def test_annotators_who_always_say_the_same_have_no_alpha_and_the_findings_are_json() -> None:
    found = check([Example("q", (Response("yes"),), labels=(Label(0, True, "ann"), Label(0, True, "bob")))])
    assert found.facts["annotators"] == 2
    assert "krippendorff_alpha" not in found.facts
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("wrong", [0.5, 0.2, 0.05])
def test_the_interval_of_alpha_holds_what_alpha_is_over_far_more_items(wrong: float) -> None:
    rng = np.random.default_rng(0)

    def sample(n: int) -> np.ndarray:
        truth = rng.integers(0, 2, n)
        votes = np.where(rng.random((n, 3)) < wrong, 1 - truth[:, None], truth[:, None])
        return np.eye(2)[votes].sum(1)

    true = alpha(sample(100_000)).value
    held = sum((a := alpha(sample(150), seed=k)).low <= true <= a.high for k in range(60))
    assert 52 <= held <= 60  # of intervals that hold 95%, fewer than 52 would be one in a thousand


# ---- flips


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.3])
def test_flips_that_were_planted_are_estimated(rate: float) -> None:
    """Lab data with a sure annotator whose choices are turned over at a known rate."""
    world = LanguageWorld(Knobs(label_noise=rate, temperature=0.02))
    data = draw(world, Writers(0.6), 1500, 3, flips=True)
    true = np.mean([score.value for e in data for score in e.scores])
    result = check([replace(e, scores=()) for e in data])
    words = result.facts["flip_rate_from_words_at_most"]
    # It errs to the upper side by the model's own mistakes, and by chance: 300 pairs have a standard error of .026.
    assert words["low"] - 0.01 <= true <= words["high"] + 0.01
    assert true <= words["surely_at_most"]
    assert result.facts["flip_rate_by_confident_learning"]["value"] > words["value"]
    assert any(f.id == "suspect-labels" for f in result.findings) == (rate > 0.1)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3])
def test_flips_are_told_from_votes(rate: float) -> None:
    rng = Random(f"votes/{rate}")
    data = []
    for k in range(800):
        for name in ("ann", "bob", "cid"):
            flip = rng.random() < rate
            data.append(Example(f"Q{k}", (Response("a"), Response("b")), (Pair(flip, not flip, annotator=name),)))
    facts = check(data).facts["flip_rate_from_votes"]
    assert facts["low"] <= rate <= facts["high"]
    assert facts["high"] - facts["low"] < 0.06
    assert facts["items"] == 800


def test_confident_pairs_are_those_of_the_definition() -> None:
    given = np.array([0.9, 0.8, 0.7, 0.55, 0.45, 0.2])  # mean 0.6
    suspect, sure = confident(given)
    assert suspect.tolist() == [False, False, False, False, False, True]
    assert sure.tolist() == [True, True, True, False, False, True]


# ---- cycles


def test_cycles_are_those_that_a_search_finds() -> None:
    """Against a walk along the majority edges from every vote, on random tournaments with repeated votes."""
    rng = Random(11)
    for _ in range(60):
        size = rng.randint(3, 6)
        votes = [tuple(rng.sample(range(size), 2)) for _ in range(rng.randint(3, 14))]
        edges = {(a, b) for a, b in votes if votes.count((a, b)) > votes.count((b, a))}

        def reaches(start: int, goal: int, edges: set = edges) -> bool:
            seen, todo = set(), [start]
            while todo:
                at = todo.pop()
                if at == goal:
                    return True
                if at not in seen:
                    seen.add(at)
                    todo += [b for a, b in edges if a == at]
            return False

        expected = [(a, b) in edges and reaches(b, a) for a, b in votes]
        answers = tuple(Response(f"r{i}") for i in range(size))
        columns = Columns()
        for index, (a, b) in enumerate(votes):
            columns.look(Looked(Example("Q", answers, (Pair(a, b),)), index))
        assert in_cycle(columns.decided).tolist() == expected
        found = list(Cycles(Setting([Example("Q", answers)] * len(votes), columns)).findings())
        assert [f.count for f in found] == ([1] if any(expected) else [])


# ---- shortcuts


def test_the_shares_are_those_of_a_plain_count(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(written(clean(500, 2)), "utf-8")
    result = check(tmp_path / "data.jsonl")
    longer = [np.sign(len(r["chosen"]) - len(r["rejected"])) for r in clean(500, 2)]
    assert result.facts["longer_wins"]["value"] == pytest.approx(np.mean([(1 + s) / 2 for s in longer]))
    assert "first_wins" not in result.facts  # the chosen one always stands first: that says nothing


def by_hand(shares: list[tuple[int, int]], confidence: float) -> tuple[float, float]:
    """The interval of a share in clusters of (right, all): residual sums of the clusters, Student's t."""
    from scipy.stats import t

    total = sum(n for _, n in shares)
    centre = sum(r for r, _ in shares) / total
    groups = len(shares)
    spread = sum((r - n * centre) ** 2 for r, n in shares) * groups / (groups - 1)
    half = t.ppf((1 + confidence) / 2, groups - 1) * spread**0.5 / total
    return max(0.0, centre - half), min(1.0, centre + half)


@pytest.mark.parametrize("confidence", [0.95, 0.999])
def test_rows_of_one_prompt_are_no_independent_evidence(confidence: float) -> None:
    shares = [(3, 10), (9, 9), (2, 6), (12, 20), (0, 3), (5, 7)]
    sign = np.concatenate([np.repeat([1, -1], [r, n - r]) for r, n in shares])
    prompts = np.repeat(np.arange(len(shares)), [n for _, n in shares])
    found = share_of(sign, prompts, confidence)
    assert (found.value, found.n) == (pytest.approx(31 / 55), 55)
    assert (found.low, found.high) == pytest.approx(by_hand(shares, confidence))


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize(("prompts", "least"), [(1, 0.2065), (2, 0.3424), (10, 0.7225)])
def test_where_all_agree_a_prompt_counts_once(side: int, prompts: int, least: float) -> None:
    """Wilson's interval of n of n begins at n / (n + 1.96^2), however many rows the n prompts have."""
    found = share_of(np.full(36 * prompts, side), np.repeat(np.arange(prompts), 36))
    assert found.value == (side > 0)
    assert (found.low, found.high) == pytest.approx((least, 1) if side > 0 else (0, 1 - least), abs=1e-4)
    assert least == pytest.approx(prompts / (prompts + 1.96**2), abs=1e-4)


def test_a_feature_of_few_prompts_is_no_finding() -> None:
    """36 votes on two prompts, all for the side with the link: two observations."""
    texts = ("Look at https://example.org for it.", "Here is all of it, in words.")
    rows = [Example(f"Q{k % 2}", tuple(map(Response, texts)), (Pair(0, 1, annotator=f"a{k}"),)) for k in range(36)]
    result = check(rows)
    link = result.facts["format_shortcut"]["link"]
    assert (link["value"], link["n"]) == (1.0, 36)
    assert link["low"] == pytest.approx(2 / (2 + 1.96**2), abs=1e-4)
    found = {f.id for f in result.findings}
    assert found.isdisjoint({"format-shortcut", "phrase-shortcut", "length-shortcut", "position-shortcut"})


def test_a_model_of_shortcuts_finds_nothing_in_random_labels_and_all_in_length() -> None:
    rng = Random(0)

    def pair(k: int, by_length: bool) -> Example:
        texts = ["word " * rng.randint(5, 60) + "end." for _ in range(2)]
        better = int(len(texts[1]) > len(texts[0])) if by_length else rng.randint(0, 1)
        return Example(f"Q{k}", tuple(map(Response, texts)), (Pair(better, 1 - better),))

    chance = check([pair(k, False) for k in range(1000)]).facts["shortcut_model"]
    assert chance["low"] < 0.52
    assert chance["high"] > 0.48
    assert check([pair(k, True) for k in range(1000)]).facts["shortcut_model"]["value"] > 0.97


def test_the_same_data_gives_the_same_result(tmp_path: Path) -> None:
    """Hashes of texts differ between processes; nothing that is shown may depend on them."""
    (tmp_path / "data.jsonl").write_text(written(clean(400)), "utf-8")
    words = [sys.executable, "-m", "boresight", "check", str(tmp_path / "data.jsonl"), "--json"]
    seen = {
        subprocess.run(words, capture_output=True, env={**os.environ, "PYTHONHASHSEED": str(k)}, check=True).stdout
        for k in (1, 2)
    }
    assert len(seen) == 1


# ---- the register


def test_every_check_is_found_and_every_finding_is_explained() -> None:
    kinds = [kind for check_class in checks() for kind in check_class.kinds]
    assert len({kind.id for kind in kinds}) == len(kinds) >= 40
    page = (Path(__file__).parents[1] / "docs" / "check.md").read_text("utf-8")
    missing = [kind.id for kind in [*kinds] if f"`{kind.id}`" not in page]
    assert missing == []
    assert "`off-policy`" in page
    assert all(issubclass(c, Check) for c in checks())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I’m sorry, I cannot do this", True),
        ("Sorry, I am unable to answer.", True),
        ("As an AI language model, I don't have feelings.", True),
        ("I cannot assist with that request.", True),
        ("I'm sorry to hear that! What happened?", False),
        ("I cannot recommend this film enough.", False),
        ("As an architect I would say no.", False),
        ("Sure, here it is.", False),
    ],
)
def test_refusals(text: str, expected: bool) -> None:
    assert refuses(text) is expected
