"""Reward-augmented pairs: both copies word for word, what is left out and counted, and goals at inference."""

from __future__ import annotations

import pytest

import boresight as bs
from boresight.curation import aim, reward_augmented_dpo
from boresight.curation.reward_augmented_dpo import goal
from boresight.data.example import Example, Label, Message, Pair, Response, Score
from boresight.data.write import write
from boresight.errors import InputError

TWO = (Response("good"), Response("nearly"))
PAIR = Example("q", TWO, pairs=(Pair(0, 1, 2.0, annotator="x"),), scores=(Score(0, 9.0), Score(1, 8.5)), id="e")


def asked(score: str) -> Message:
    return Message("system", f"Target score of the answer: {score}, on a scale from 1 (worst) to 10 (best).")


def test_a_pair_becomes_two_with_the_goals_of_both():
    made = reward_augmented_dpo([PAIR])
    user = Message("user", "q")
    assert list(made) == [
        Example((asked("9"), user), TWO, pairs=(Pair(0, 1, 2.0, annotator="x"),), id="e~goal 9"),
        Example((asked("8.5"), user), TWO, pairs=(Pair(1, 0, 2.0, annotator="x"),), id="e~goal 8.5"),
    ]
    assert made.counts["pairs doubled"] == 1
    assert sum(made.counts.values()) == 1


def test_without_a_system_role_the_goal_heads_the_users_words():
    turns = (Message("user", "hello"), Message("assistant", "hi"), Message("user", "q"))
    first, _ = reward_augmented_dpo([Example(turns, TWO, PAIR.pairs, PAIR.scores)], system=False)
    assert first.prompt == (Message("user", f"{asked('9').content}\n\nhello"), *turns[1:])
    plain, _ = reward_augmented_dpo([PAIR], system=False)
    assert plain.prompt == f"{asked('9').content}\n\nq"


def test_words_of_the_system_and_prompts_of_responses_are_kept():
    turns = (Message("system", "be kind"), Message("user", "q"))
    own = (Response("good"), Response("nearly", prompt="another"))
    first, _ = reward_augmented_dpo([Example(turns, own, PAIR.pairs, PAIR.scores)])
    assert first.prompt == (Message("system", f"{asked('9').content}\n\nbe kind"), turns[1])
    assert first.responses[1].prompt == (asked("9"), Message("user", "another"))
    assert first.responses[0].prompt is None


def test_scores_are_means_of_their_name_and_other_feedback_goes():
    scores = (Score(0, 8.0, "h", "x"), Score(0, 9.0, "h", "y"), Score(1, 2.0, "h"), Score(1, 10.0, "other"))
    whole = Example("q", TWO, (Pair(0, 1),), scores, (Label(0, True),), (1, 2), source="a.jsonl:3")
    made = reward_augmented_dpo([whole], name="h", low=0)
    assert [e.id for e in made] == ["a.jsonl:3~goal 8.5", "a.jsonl:3~goal 2"]
    assert all(not (e.scores or e.labels or e.ranks or e.steps) for e in made)
    assert "from 0 (worst)" in made[0].prompt[0].content


def test_several_pairs_and_pairs_of_scores():
    three = tuple(Response(t) for t in "abc")
    scores = tuple(Score(i, v) for i, v in enumerate((5.0, 7.0, 1.0)))
    (one, two) = reward_augmented_dpo([Example("q", three, scores=scores)])
    assert (one.pairs, two.pairs) == ((Pair(1, 2),), (Pair(2, 1),))
    every = reward_augmented_dpo([Example("q", three, scores=scores, id="e")], ranked="all")
    assert [e.id for e in every] == [
        f"e~{k}~goal {s}" for k, pair in enumerate(("75", "71", "51")) for s in pair
    ]  # fmt: skip


def test_what_is_left_out_is_counted():
    def scored(a: float, b: float) -> Example:
        return Example("q", TWO, pairs=(Pair(0, 1),), scores=(Score(0, a), Score(1, b)))

    lacking = Example("q", TWO, pairs=(Pair(0, 1),), scores=(Score(0, 3.0),))
    tied = Example("q", TWO, pairs=(Pair(0, 1, tie=True),), scores=(Score(0, 3.0), Score(1, 2.0)))
    made = reward_augmented_dpo([scored(3, 3), scored(2, 3), scored(3, 2), lacking, tied, Example("q", TWO)])
    assert len(made) == 2
    assert dict(made.counts) == {
        "pairs doubled": 1, "pairs without scores": 1, "pairs of equal scores": 1, "pairs against their scores": 1,
        "examples without a pair": 2, "ties": 1,
    }  # fmt: skip


def test_goals_at_inference_are_those_of_training():
    (first, _), (asking,) = reward_augmented_dpo([PAIR]), aim([PAIR], 9)
    assert asking.prompt == first.prompt
    assert asking.scores == PAIR.scores
    assert aim([PAIR], 10)[0].prompt[0] == asked("10")


def test_what_is_made_of_a_file_is_read_back_and_trained_on_as_pairs(tmp_path):
    rows = '{"prompt": "q", "chosen": "good", "rejected": "nearly", "score_chosen": 9, "score_rejected": 8}\n'
    (tmp_path / "a.jsonl").write_text(rows)
    made = reward_augmented_dpo(bs.read(tmp_path / "a.jsonl", cache=tmp_path / "cache"))
    assert write(made, tmp_path / "b.jsonl") == 2
    back = bs.read(tmp_path / "b.jsonl", cache=tmp_path / "cache")
    assert list(back) == list(made)
    assert [(e.pairs[0].chosen, e.pairs[0].rejected) for e in back] == [(0, 1), (1, 0)]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: reward_augmented_dpo([PAIR], high=8.9), "e: a score of 9"),
        (lambda: reward_augmented_dpo([PAIR], low=8.7), "e: a score of 8.5"),
        (lambda: reward_augmented_dpo([], low=5, high=5), "scale"),
        (lambda: aim([PAIR], 11), "score of 11"),
        (lambda: goal(float("nan")), "score of nan"),
    ],
)
def test_what_cannot_be_used_is_refused(call, named: str):
    with pytest.raises(InputError) as caught:
        call()
    assert named in caught.value.what
    assert caught.value.mend
