"""Formats of single published data sets, as their authors lay them out."""

from __future__ import annotations

import re
from pathlib import Path

from boresight.data._forms import form
from boresight.data.cells import Bad, Cells, Partly, found, has, listing, name, show, text, whole
from boresight.data.example import Example, Pair, Response
from boresight.data.shapes import JUDGES, about, prompt_of, vote


@form("llmbar", "input output_1 output_2 label")
def llmbar(row: Cells) -> Example:
    """An instruction and two outputs; label 1 or 2 is the better one (Zeng et al. 2023, LLMBar)."""
    better = whole(row, "label", 1, 2) - 1
    responses = (Response(text(row, "output_1")), Response(text(row, "output_2")))
    return Example(text(row, "input"), responses, pairs=(Pair(better, 1 - better),), **about(row))


def _judged_pairs(votes: Path) -> tuple[Path, str] | None:
    """NAME_judge_votes.jsonl.gz goes with NAME.jsonl.gz."""
    plain = votes.name.replace("_judge_votes", "")
    return (votes.with_name(plain), "id") if plain != votes.name else None


@form("llmbar-judge-votes", "id judge forward swapped", "id judge forward", "id judge swapped", beside=_judged_pairs)
def llmbar_judge_votes(row: Cells) -> Example:
    """What a judge said of an LLMBar pair in the order given, and with the outputs swapped: two votes.

    The texts come from the file beside it. The annotator of the second vote is "JUDGE, swapped". A verdict that is
    null could not be parsed by the authors: it makes no vote, and the example counts as partial.
    """
    judge, pairs, unparsed = text(row, "judge"), [], None
    for key, annotator in (("forward", judge), ("swapped", f"{judge}, swapped")):
        if has(row, key):
            pairs.append(vote(row, key, {"1": 0, "2": 1}, annotator))
        else:
            unparsed = Bad(key, "the verdict 1 or 2", found(row, key))
    responses = (Response(text(row, "output_1")), Response(text(row, "output_2")))
    example = Example(text(row, "input"), responses, pairs=tuple(pairs), **about(row))
    if unparsed:
        raise Partly(example, unparsed)
    return example


@form("pandalm", "instruction response1 response2 human")
def pandalm(row: Cells) -> Example:
    """Two systems' answers and what people said: 1 or 2 is better, 0 is a tie (Wang et al. 2023, PandaLM).

    The people are annotators human-1, human-2, ... by their place in the list; who they are differs between rows. The
    verdicts of judges in the same rows are not read. An empty answer is kept: it was voted on.
    """
    pairs = []
    for place, value in enumerate(listing(row, "human", what="labels")):
        label = whole({f"human[{place}]": value}, f"human[{place}]", 0, 2)
        better = max(label - 1, 0)
        pairs.append(Pair(better, 1 - better, tie=label == 0, annotator=f"human-{place + 1}"))
    responses = tuple(Response(text(row, f"response{i}", blank=True), name(row, f"system{i}")) for i in (1, 2))
    return Example(prompt_of(row), responses, pairs=tuple(pairs), **about(row))


def _arena_pairs(votes: Path) -> tuple[Path, str] | None:
    """X_votes.csv.gz goes with pairs.jsonl.gz in the same folder."""
    found_there = (votes.with_name(f"pairs.jsonl{end}") for end in (".gz", ""))
    return (next((p for p in found_there if p.exists()), votes.with_name("pairs.jsonl.gz")), "id")


@form("llmfao", "id model_x model_y left right winner", beside=_arena_pairs)
def llmfao(row: Cells) -> Example:
    """One vote of llmfao (Ustalov 2023): left, right or tie. The texts come from pairs.jsonl beside it.

    One example a vote; those on the same pair share their `id`. An empty answer is kept: it was voted on.
    """
    sides = (("result_x", "left"), ("result_y", "right"))
    responses = tuple(Response(text(row, result, blank=True), name(row, system)) for result, system in sides)
    voted = vote(row, "winner", {"left": 0, "right": 1}, name(row, *JUDGES))
    return Example(text(row, "text"), responses, pairs=(voted,), **about(row))


@form("llmfao-pairs", "id text model_x result_x model_y result_y")
def llmfao_pairs(row: Cells) -> Example:
    """The texts of llmfao without any vote: two responses to judge. The systems are known by number only."""
    sides = (("result_x", "model_x"), ("result_y", "model_y"))
    responses = tuple(Response(text(row, result, blank=True), name(row, system)) for result, system in sides)
    return Example(text(row, "text"), responses, **about(row))


_ICAI = re.compile(r"Instruction: (.*?)\n\nOutput: (.*)", re.DOTALL)


@form("icai", "text_a text_b preferred_text")
def icai(row: Cells) -> Example:
    """Two texts, and the name of the column that is preferred (Findeis et al. 2024, Inverse Constitutional AI).

    Where both read "Instruction: ... Output: ..." with the same instruction, that is the prompt; else it is empty.
    """
    sides = ("text_a", "text_b")
    preferred = text(row, "preferred_text", blank=True)
    if preferred not in sides:
        raise Bad("preferred_text", "text_a or text_b", show(preferred))
    texts, prompt = [text(row, side) for side in sides], ""
    split = [_ICAI.fullmatch(t) for t in texts]
    if split[0] and split[1] and split[0][1] == split[1][1]:
        prompt, texts = split[0][1], [split[0][2], split[1][2]]
    better = sides.index(preferred)
    return Example(prompt, (Response(texts[0]), Response(texts[1])), pairs=(Pair(better, 1 - better),), **about(row))


@form("persona", "question answer_matching_behavior answer_not_matching_behavior")
def persona(row: Cells) -> Example:
    """A question and the answer a persona would give, preferred to the one it would not (Perez et al. 2022).

    The answers are kept with their leading space (" Yes"), as they stand.
    """
    sides = (text(row, "answer_matching_behavior"), text(row, "answer_not_matching_behavior"))
    return Example(text(row, "question"), (Response(sides[0]), Response(sides[1])), pairs=(Pair(0, 1),), **about(row))
