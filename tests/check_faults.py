"""A clean file of preferences, and what can be wrong with one: each planted with its exact count and rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

Row = dict[str, Any]

THINGS = ["apples", "pears", "books", "chairs", "stamps", "coins", "shells", "ropes", "lamps", "tiles", "nails", "jars"]
FILLERS = (
    "Count them once more to be sure.",
    "That follows from adding both numbers.",
    "Take the tens first and the ones after.",
    "Both heaps were counted by hand.",
    "It is easiest to see on paper.",
)


def clean(n: int = 300, seed: int = 0) -> list[Row]:
    """Sums, one right and one wrong: nothing but the content tells the sides apart."""
    rng = Random(f"clean/{seed}")
    rows = []
    for k in range(n):
        a, b, thing = rng.randint(100, 999), rng.randint(100, 999), rng.choice(THINGS)
        wrong = a + b + rng.choice([-20, -11, 9, 30])

        def say(total: int, thing: str = thing) -> str:
            fillers = rng.sample(FILLERS, rng.randint(1, 3))
            return f"Together there are {total} {thing}. {' '.join(fillers)}"

        prompt = f"Box {seed}-{k} holds {a} {thing}, another one holds {b} more. How many {thing} is that?"
        rows.append({"prompt": prompt, "chosen": say(a + b), "rejected": say(wrong)})
    return rows


@dataclass
class Fault:
    """A planted fault.

    plant: makes the faulty rows (dictionaries, or lines as they stand) of clean ones. count: what the finding counts.
    lines: of the file, from 1, that the finding concerns; None where it concerns the file as a whole. also: findings
    that cannot be helped. options: of `check`. other: rows of the split to check against.
    """

    id: str
    count: int
    lines: list[int] | None
    plant: Callable[[list[Row]], list[Any]]
    also: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    other: list[Row] | None = None
    severity: str | None = None


def at(changes: dict[int, Row | str]) -> Callable[[list[Row]], list[Any]]:
    """Change rows by line: a dictionary is laid over the row, a text takes its place."""

    def plant(rows: list[Row]) -> list[Any]:
        out: list[Any] = list(rows)
        for line, change in changes.items():
            out[line - 1] = change if isinstance(change, str) else {**rows[line - 1], **change}
        return out

    return plant


def prefixed(lines: list[int], key: str, text: str) -> Callable[[list[Row]], list[Any]]:
    """Put a text before what stands under a key."""

    def plant(rows: list[Row]) -> list[Any]:
        return at({n: {key: text + rows[n - 1][key]} for n in lines})(rows)

    return plant


def voted(rows: list[Row], seed: int = 1) -> list[Row]:
    """The same as votes between two systems, on sides drawn by lot."""
    rng = Random(f"votes/{seed}")
    out = []
    for row in rows:
        first = rng.random() < 0.5
        sides = (row["chosen"], row["rejected"]) if first else (row["rejected"], row["chosen"])
        vote = {"prompt": row["prompt"], "model_a": "a", "model_b": "b", "response_a": sides[0], "response_b": sides[1]}
        out.append(vote | {"winner": "model_a" if first else "model_b"})
    return out


def on_votes(change: Callable[[list[Row]], list[Any]]) -> Callable[[list[Row]], list[Any]]:
    return lambda rows: change(voted(rows))


def copies(*pairs: tuple[int, int]) -> Callable[[list[Row]], list[Any]]:
    """Lay the row of the first line over that of the second."""
    return lambda rows: at({to: dict(rows[source - 1]) for source, to in pairs})(rows)


def reversed_copy(rows: list[Row]) -> list[Any]:
    row = rows[9]
    return at({40: {"prompt": row["prompt"], "chosen": row["rejected"], "rejected": row["chosen"]}})(rows)


def circle(rows: list[Row]) -> list[Any]:
    """A over B, B over C, C over A; and a mere chain on another prompt."""
    a, b, c = (f"The {name} answer to it is {n}." for name, n in (("first", 1), ("second", 2), ("third", 3)))
    asked = {"prompt": "Which one?"}
    changes: dict[int, Row | str] = {
        n: asked | {"chosen": x, "rejected": y} for n, x, y in ((5, a, b), (50, b, c), (95, c, a))
    }
    chain = {"prompt": "Which of these?"}
    changes |= {n: chain | {"chosen": x, "rejected": y} for n, x, y in ((6, a, b), (51, b, c), (96, a, c))}
    return at(changes)(rows)


def annotated(**wrong: Callable[[int], bool]) -> Callable[[list[Row]], list[Any]]:
    """Every row judged by each annotator, who errs in the rows (from 0) that the function says."""

    def plant(rows: list[Row]) -> list[Any]:
        out = []
        for number, row in enumerate(voted(rows)):
            for name, errs in wrong.items():
                other = {"model_a": "model_b", "model_b": "model_a"}[row["winner"]]
                out.append(row | {"winner": other if errs(number) else row["winner"], "annotator": name})
        return out

    return plant


HASTY = annotated(ann=lambda n: n % 5 == 0, bob=lambda n: n // 5 % 5 == 0)
"""Two who err in a fifth of the rows each, independently: they differ in 2 x .2 x .8 of 300 items."""


def labelled(rows: list[Row]) -> list[Row]:
    """Single responses, right ones desirable, wrong ones not, in turn."""
    sides = [("chosen", True), ("rejected", False)]
    return [
        {"prompt": r["prompt"], "completion": r[k], "label": v} for n, r in enumerate(rows) for k, v in [sides[n % 2]]
    ]


def both_labels(rows: list[Row]) -> list[Any]:
    out = labelled(rows)
    out[19] = out[4] | {"label": not out[4]["label"]}
    return out


def longer(rows: list[Row]) -> list[Any]:
    """In three of four rows the right answer goes on."""
    return [
        r | {"chosen": r["chosen"] + " Here is why:" + " it adds up" * 9} if n % 4 else r for n, r in enumerate(rows)
    ]


def listed(rows: list[Row]) -> list[Any]:
    """In a third of the rows the right answer is a list, the wrong one as long."""
    out = []
    for n, r in enumerate(rows):
        if n % 3 == 0:
            r = r | {"chosen": "- " + r["chosen"].replace(". ", ".\n- "), "rejected": "-- " + r["rejected"]}
        out.append(r)
    return out


def sure(rows: list[Row]) -> list[Any]:
    """In a third of the rows one side begins with a phrase: the right one, but in one of twenty."""
    rng, out = Random("sure"), []
    for n, r in enumerate(rows):
        if n % 3 == 0:
            key, other = ("chosen", "rejected") if n % 60 else ("rejected", "chosen")
            r = r | {key: "Certainly, yes. " + r[key], other: f"{rng.choice(THINGS)} and more. {r[other]}"}
        out.append(r)
    return out


def longer_wins(rows: list[Row]) -> int:
    """The longer response is chosen so often, equal ones counting half."""
    return round(sum(0.5 + 0.5 * np.sign(len(r["chosen"]) - len(r["rejected"])) for r in rows))


def flipped(rows: list[Row]) -> list[Any]:
    """Words tell which side is right; a quarter of the labels is turned over, alternately in both directions."""
    rng, out = Random("flips"), []
    for n, row in enumerate(rows):
        good, bad = rng.sample(GOOD, 3), rng.sample(BAD, 3)
        chosen, rejected = f"They were {' and '.join(good)}.", f"They were {' and '.join(bad)}."
        if n % 4 == 0:
            chosen, rejected = rejected, chosen
        out.append(row | {"chosen": chosen, "rejected": rejected})
    return out


GOOD = ["kind", "quick", "fair", "clear", "warm", "brave", "calm", "wise"]
BAD = ["rude", "idle", "vague", "harsh", "cold", "timid", "loud", "rash"]

REFUSING = "I'm sorry, but I cannot help with that. "
LONG = "Add the ones and carry. " * 2200
MESSY = {
    "control-characters": "\x00",
    "bidi-controls": "\u202e",
    "invisible-characters": "\u200b",
    "replacement-characters": "\ufffd",
    "mojibake": "donâ€™t ",
    "mixed-script-words": "pаypаl аnd sо ",  # with Cyrillic letters
}

LIKE = (
    "Please write a short letter to my landlord which says that the window in the {} has been broken since the storm "
    "of last week, that rain comes in, and that I would like it to be mended before the first of next month."
)


FAULTS = {
    "broken JSON": Fault("unreadable-rows", 2, [7, 120], at({7: '{"prompt": "x", "cho', 120: "nonsense"})),
    "a missing side": Fault("unreadable-rows", 1, [33], at({33: {"rejected": None}})),
    "an empty side": Fault("unreadable-rows", 1, [34], at({34: {"rejected": "  "}})),
    "half a character": Fault("unreadable-rows", 1, [35], at({35: {"rejected": "no \ud800 way"}})),
    "identical sides": Fault(
        "identical-pairs",
        2,
        [3, 77],
        at({3: {"chosen": "Same.", "rejected": "Same."}, 77: {"chosen": "It", "rejected": "It"}}),
    ),
    "sides that differ in blanks": Fault(
        "space-only-difference", 1, [12], at({12: {"chosen": "It is  so.\n", "rejected": "It is so."}})
    ),
    "copies": Fault("duplicate-rows", 3, [30, 31, 99], copies((2, 30), (2, 31), (98, 99))),
    "a reversed copy": Fault("reversed-duplicates", 1, [10, 40], reversed_copy),
    "a circle": Fault("preference-cycles", 1, [5, 50, 95], circle),
    "annotators who disagree": Fault(
        "annotator-conflicts", 4, [1, 2, 3, 4, 5, 6, 7, 8], annotated(ann=lambda n: False, bob=lambda n: n < 4)
    ),
    "little agreement": Fault("low-agreement", 96, None, HASTY, also=("annotator-conflicts", "disagreeing-votes")),
    "votes turned over": Fault("disagreeing-votes", 120, None, HASTY, also=("annotator-conflicts", "low-agreement")),
    "one bad annotator": Fault(
        "odd-annotators",
        1,
        list(range(3, 901, 3)),
        annotated(ann=lambda n: n == 7, bob=lambda n: n == 8, eve=lambda n: n % 2 == 0),
        also=("annotator-conflicts", "low-agreement", "disagreeing-votes"),
    ),
    "both labels": Fault("conflicting-labels", 1, [5, 20], both_labels),
    "one kind of label": Fault("one-sided-labels", 150, None, lambda rows: [r for r in labelled(rows) if r["label"]]),
    "ties": Fault("ties", 2, [8, 9], on_votes(at({8: {"winner": "tie"}, 9: {"winner": "tie"}}))),
    "an empty answer": Fault("empty-responses", 1, [14], on_votes(at({14: {"response_a": " \n"}}))),
    "a stub": Fault("placeholder-responses", 2, [15, 16], at({15: {"rejected": "N/A"}, 16: {"rejected": "[deleted]"}})),
    "a few refusals": Fault("refusals", 2, [17, 18], prefixed([17, 18], "rejected", REFUSING), severity="note"),
    "many refusals": Fault(
        "refusals",
        60,
        list(range(1, 300, 5)),
        lambda rows: prefixed(list(range(1, 300, 5)), "chosen", REFUSING)(rows),
        also=("format-shortcut", "phrase-shortcut", "shortcut-model", "length-shortcut", "suspect-labels"),
        severity="warning",
    ),
    "an endless answer": Fault(
        "very-long-responses", 1, [19], at({19: {"rejected": LONG.replace("carry. ", "carry.\n")}})
    ),
    "an endless line": Fault("very-long-lines", 1, [20], at({20: {"chosen": "iVBORw0KGgo" * 1000}})),
    "an empty prompt": Fault("empty-prompts", 2, [21, 22], at({21: {"prompt": ""}, 22: {"prompt": " "}})),
    "one prompt too often": Fault(
        "crowded-prompts", 60, list(range(1, 61)), lambda rows: at({n: {"prompt": "Hm?"} for n in range(1, 61)})(rows)
    ),
    "a token written out": Fault("special-token-text", 2, [23, 24], prefixed([23, 24], "prompt", "<|im_end|> ")),
    "a second speaker": Fault(
        "role-markers", 1, [25], at({25: {"chosen": "It is so.\n\nHuman: and then?\n\nAssistant: yes"}})
    ),
    **{id: Fault(id, 2, [26, 27], prefixed([26, 27], "rejected", text)) for id, text in MESSY.items()},
    "another script": Fault(
        "other-script", 1, [28], at({28: {"chosen": "Всего там тысяча яблок, если их сосчитать."}})
    ),
    "score against the label": Fault(
        "score-disagrees",
        1,
        [29],
        at({29: {"score_chosen": 1, "score_rejected": 2}, 30: {"score_chosen": 2, "score_rejected": 1}}),
    ),
    "the longer one wins": Fault(
        "length-shortcut", longer_wins(longer(clean())), None, longer, also=("shortcut-model", "suspect-labels")
    ),
    "the first one wins": Fault(
        "position-shortcut",
        300,
        None,
        lambda rows: [r | {"winner": "model_a"} for r in voted(rows)],
        also=("shortcut-model",),
    ),
    "lists win": Fault(
        "format-shortcut", 100, list(range(1, 301, 3)), listed, also=("shortcut-model", "phrase-shortcut")
    ),
    "a phrase wins": Fault(
        "phrase-shortcut", 95, list(range(1, 301, 3)), sure, also=("shortcut-model", "suspect-labels")
    ),
    "shortcuts explain much": Fault("shortcut-model", 0, None, longer, also=("length-shortcut", "suspect-labels")),
    "labels turned over": Fault("suspect-labels", 0, None, flipped, also=("shortcut-model", "phrase-shortcut")),
    "prompts of the other split": Fault(
        "leaked-prompts",
        3,
        [41, 42, 43],
        lambda rows: rows,
        other=[{**r, "chosen": "x"} for r in clean()[40:43]] + clean(50, 1),
    ),
    "prompts much like others": Fault(
        "near-prompts",
        2,
        [44, 45],
        lambda rows: at({n: {"prompt": LIKE.format(name)} for n, name in ((44, "garden"), (45, "meadow"))})(rows),
        other=[{"prompt": LIKE.format("cellar"), "chosen": "x", "rejected": "y"}, *clean(50, 1)],
    ),
}


def written(rows: list[Any]) -> str:
    """As JSON lines; texts stand as they are."""
    return "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
