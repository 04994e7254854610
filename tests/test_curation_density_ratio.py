"""Density ratios as weights of labels: which label gets which, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import boresight as bs
from boresight.curation import density_ratio
from boresight.data.example import Example, Label, Pair, Response
from boresight.data.write import write
from boresight.errors import InputError
from boresight.objectives.preference.bco import density_ratio_weights

TWO = (Response("a"), Response("b"))


def labelled(*labels: Label) -> Example:
    return Example("q", TWO, labels=labels)


def test_each_label_gets_the_weight_of_its_prompt_times_its_own():
    """Two kinds of prompts; undesirable answers are mostly to the second, desirable ones to the first."""
    up, down = Label(0, True), Label(1, False, "x", 2.0)
    some = [labelled(up), labelled(up, down), Example("q", TWO, pairs=(Pair(0, 1),)), labelled(down), labelled(down)]
    kind = torch.tensor([[1.0], [1.0], [0.0], [-1.0], [-1.0]])
    made = density_ratio(some, kind, l2=0.1)
    plain = density_ratio_weights(kind[[0, 1, 1, 3, 4]], torch.tensor([True, True, False, False, False]), l2=0.1)
    assert plain[2] > plain[3] == plain[4]
    expected = [
        labelled(up),
        labelled(up, replace(down, weight=2 * float(plain[2]))),
        some[2],
        labelled(replace(down, weight=2 * float(plain[3]))),
        labelled(replace(down, weight=2 * float(plain[4]))),
    ]
    assert list(made) == expected
    assert dict(made.counts) == {"desirable labels": 2, "undesirable labels": 3, "examples without a label": 1}


def test_prompts_alike_weigh_alike():
    made = density_ratio([labelled(Label(0, True), Label(1, False))] * 3, torch.ones(3, 2))
    assert [x.weight for e in made for x in e.labels] == pytest.approx([1.0] * 6)


def test_weights_reach_a_file_and_come_back(tmp_path):
    some = [labelled(Label(0, True)), labelled(Label(1, False)), labelled(Label(1, False))]
    made = density_ratio(some, torch.tensor([[2.0], [2.0], [-2.0]]), l2=0.01)
    write(made, tmp_path / "a.jsonl")
    back = bs.read(tmp_path / "a.jsonl", cache=tmp_path / "cache")
    assert [e.labels for e in back] == [e.labels for e in made]
    assert made[2].labels[0].weight == 0.5


@pytest.mark.parametrize(
    ("some", "embedding", "words", "named"),
    [
        ([labelled(Label(0, True))], torch.zeros(2, 1), {}, "1 examples"),
        ([labelled(Label(0, True))], torch.zeros(1), {}, "shape"),
        ([labelled(Label(0, True))], torch.zeros(1, 1), {}, "both"),
        ([], torch.zeros(0, 1), {}, "both"),
        ([labelled(Label(0, True), Label(1, False))], torch.zeros(1, 1), {"lowest": 2.0}, "lowest"),
    ],
)
def test_what_cannot_be_used_is_refused(some, embedding, words, named):
    with pytest.raises(InputError) as caught:
        density_ratio(some, embedding, **words)
    assert named in caught.value.what
    assert caught.value.mend
