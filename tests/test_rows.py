"""Training rows: what is made, what is left out and counted, mismatched prompts, the file they lie in."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boresight.data import rows as room
from boresight.data import views
from boresight.data.example import Example, Label, Message, Pair, Response
from boresight.data.render import Renderer
from boresight.data.rowfile import BATCH
from boresight.data.rows import Rows, derangement, make_rows
from boresight.data.tokens import Row, Tokens
from boresight.errors import InputError
from templates import tokenizer


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BORESIGHT_CACHE", str(tmp_path / "cache"))


def renderer(chat: str | None = "llama3", **options: object) -> Renderer:
    return Renderer(tokenizer("bytes", chat), **options)  # type: ignore[arg-type]


def paired(prompt: str, chosen: str, rejected: str, **more: object) -> Example:
    return Example(prompt, (Response(chosen), Response(rejected)), (Pair(0, 1),), **more)  # type: ignore[arg-type]


def equal(a: Tokens, b: Tokens) -> bool:
    return np.array_equal(a.ids, b.ids) and np.array_equal(a.mask, b.mask) and a.ends == b.ends


def answer(tokens: Tokens, made: Renderer) -> str:
    return made.tokenizer.decode(tokens.ids[tokens.mask], skip_special_tokens=True)


MANY = [
    paired(f"Question {i}?", f"Yes, {i} times. " * (1 + i % 7), f"No {i}.", source=f"a.jsonl:{i + 1}")
    for i in range(2 * BATCH + 3)
]


def test_rows_come_back_from_the_file_as_they_were_made() -> None:
    made = renderer()
    rows = make_rows(MANY, made, kind="pairs")
    assert len(rows) == len(MANY)
    for place in (0, 1, BATCH - 1, BATCH, 2 * BATCH, len(MANY) - 1, -1):
        row, example = rows[place], MANY[place]
        assert row.index == place % len(MANY)
        assert row.source == example.source
        assert row.weight == 1.0
        assert row.desirable is None
        for got, response in zip(row.sequences, example.responses, strict=True):
            assert got.ids.dtype == np.int32
            assert equal(got, made.tokens(example.prompt, response))  # type: ignore[arg-type]
    assert [r.index for r in rows] == list(range(len(MANY)))
    assert [r.index for r in rows[3:9:2]] == [3, 5, 7]
    again = pickle.loads(pickle.dumps(rows))
    assert equal(again[BATCH].sequences[1], rows[BATCH].sequences[1])
    with pytest.raises(IndexError):
        rows[len(MANY)]


def test_weights_and_every_pair_of_an_example() -> None:
    example = Example(
        "Q?", (Response("a"), Response("b"), Response("c")), (Pair(0, 1, weight=2.5), Pair(2, 1), Pair(0, 2, tie=True))
    )
    made = renderer()
    rows = make_rows([example], made, kind="pairs")
    assert [(answer(r.sequences[0], made), answer(r.sequences[1], made), r.weight) for r in rows] == [
        ("a", "b", 2.5),
        ("c", "b", 1.0),
    ]
    assert rows.report.dropped == {"tie": 1}


def test_pitfall_03_pairs_that_are_or_become_identical_are_dropped_and_counted() -> None:
    start = "The same long beginning of both the answers, "
    data = [
        paired("Q?", start + "good", start + "bad", source="f:1"),
        paired("Q?", "Paris.\n", "Paris.", source="f:2"),
        paired("Q?", "yes", "no", source="f:3"),
    ]
    rows = make_rows(data, renderer(max_length=30, truncation="cut-both"), kind="pairs")
    assert rows.report.dropped == {"identical-after-truncation": 1, "identical": 1}
    assert rows.report.first["identical-after-truncation"] == ["f:1"]
    assert rows.report.first["identical"] == ["f:2"]
    assert [r.source for r in rows] == ["f:3"]


def test_pitfall_03_answers_without_an_end_are_counted() -> None:
    data = [paired("Q?", "long answer " * 20 + str(i), "short") for i in range(4)]
    rows = make_rows(data, renderer(max_length=40, truncation="cut-both"), kind="pairs")
    assert (rows.report.cut_answers, rows.report.endless) == (4, 4)
    assert [[s.ends for s in r.sequences] for r in rows] == [[False, True]] * 4
    assert any("given an end-of-turn: 4" in line for line in rows.report.lines())


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Q", "Q " * 9]), st.sampled_from(["", " ", "a", "b", "b" * 30]), st.sampled_from("ab")
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([None, 12, 20]),
    st.sampled_from(["drop", "cut-prompt", "cut-both"]),
)
def test_nothing_is_left_out_without_being_counted(data: list, limit: int | None, policy: str) -> None:
    examples = [paired(*row) for row in data]
    try:
        report = make_rows(examples, renderer(max_length=limit, truncation=policy), kind="pairs").report
    except InputError:
        return  # none left: what it says has a test of its own
    assert report.examples == len(examples)
    assert report.made + sum(report.dropped.values()) == len(examples)


def test_responses_share_one_prompt_cut() -> None:
    data = [Example("word " * 30, (Response("a " * 12), Response("b"), Response("c " * 5)), (Pair(0, 1), Pair(2, 1)))]
    rows = make_rows(data, renderer(max_length=50, truncation="cut-prompt"), kind="pairs")
    heads = {tuple(s.ids[: int(s.mask.argmax())].tolist()) for r in rows for s in r.sequences}
    assert len(heads) == 1
    assert max(len(s) for r in rows for s in r.sequences) == 50
    assert rows.report.cut_prompts == 4


def test_demonstrations_and_labels() -> None:
    made = renderer()
    rows = make_rows(MANY[:5], made, kind="responses")
    assert [answer(r.sequences[0], made) for r in rows] == [e.responses[0].text.strip() for e in MANY[:5]]
    assert {r.desirable for r in rows} == {None}
    labels = [Example(f"Q{i}", (Response(f"a{i}"),), labels=(Label(0, i % 2 == 0),)) for i in range(4)]
    rows = make_rows(labels, made, kind="responses", labelled=True)
    assert [r.desirable for r in rows] == [True, False, True, False]
    rows = make_rows(MANY[:2], made, kind="responses", labelled=True)
    assert [r.desirable for r in rows] == [x.desirable for e in MANY[:2] for x in views.labelled(e)]


# ---- mismatched prompts


@settings(max_examples=200)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=40), st.integers(0, 5))
def test_pitfall_14_derangement(prompts: list[int], seed: int) -> None:
    values = np.asarray(prompts, np.uint64)
    if len(set(prompts)) < 2:
        with pytest.raises(InputError, match="same prompt"):
            derangement(values, seed)
        return
    partner = derangement(values, seed)
    assert (values[partner] != values).all()
    if 2 * Counter(prompts).most_common(1)[0][1] <= len(prompts):
        assert sorted(partner) == list(range(len(prompts)))
    assert partner.tolist() == derangement(values, seed).tolist()


def test_pitfall_14_derangement_is_fair() -> None:
    """Four different prompts have six circular orders; each other prompt is met equally often."""
    met = np.zeros((4, 4))
    for seed in range(1200):
        met[np.arange(4), derangement(np.arange(4, dtype=np.uint64), seed)] += 1
    assert met.diagonal().tolist() == [0] * 4
    others = met[~np.eye(4, dtype=bool)]
    assert abs(others - 400).max() < 4.5 * np.sqrt(1200 * (1 / 3) * (2 / 3))


def test_pitfall_14_mismatched_sequences_lie_behind_another_prompt() -> None:
    made = renderer()
    data = [*MANY[:6], paired("Question 0?", "Another answer.", "No."), paired("", "Empty prompt.", "No.")]
    data.append(Example((Message("user", "Question 1?"),), (Response("In messages."), Response("No")), (Pair(0, 1),)))
    rows = make_rows(data, made, kind="responses", mismatched=True, seed=3)
    for row in rows:
        own, other = row.sequences
        assert own.ids[own.mask].tolist() == other.ids[other.mask].tolist()
        assert own.ids[~own.mask].tolist() != other.ids[~other.mask].tolist()
        texts = [made.tokenizer.decode(made.prompt_ids(e.prompt)) for e in data]
        assert made.tokenizer.decode(other.ids[~other.mask]) in texts
    same = make_rows(data, made, kind="responses", mismatched=True, seed=3)
    assert same.fingerprint == rows.fingerprint
    assert make_rows(data, made, kind="responses", mismatched=True, seed=4).fingerprint != rows.fingerprint


def test_mismatched_prompts_are_cut_to_fit() -> None:
    data = [Example("Q " * n, (Response("answer " * (6 - n)),)) for n in (1, 5)]
    made = renderer(max_length=36)
    rows = make_rows(data, made, kind="responses", mismatched=True)
    assert len(rows) == 2
    assert rows.report.cut_mismatched == 1
    assert all(len(s) <= 36 and s.ends for r in rows for s in r.sequences)


def test_all_prompts_equal_is_refused() -> None:
    data = [Example("Q", (Response(f"a{i}"),)) for i in range(3)]
    with pytest.raises(InputError, match="all 3 rows have the same prompt"):
        make_rows(data, renderer(), kind="responses", mismatched=True)
    data = [Example("Q", (Response("a"),)), Example((Message("user", "Q"),), (Response("b"),))]
    with pytest.raises(InputError, match="all 2 rows have the same prompt"):  # a text is one user message
        make_rows(data, renderer(), kind="responses", mismatched=True)
    with pytest.raises(InputError, match="single responses only"):
        make_rows(MANY, renderer(), kind="pairs", mismatched=True)


# ---- nothing left, the cache, the file


@pytest.mark.parametrize(
    ("data", "options", "kind", "says", "mend"),
    [
        ([Example("Q", (Response("a"),))], {}, "pairs", "without the feedback", "pairs, ranks or scores"),
        ([paired("Q", "a" * 99, "b")], {"max_length": 20}, "pairs", "fit into max_length: 1", "raise max_length"),
        ([paired("Q", " ", "b", source="f:7")], {}, "pairs", "f:7", "boresight check"),
        ([], {}, "pairs", "of 0 examples", "use a method"),
    ],
)  # fmt: skip
def test_no_rows_left_says_why(data: list, options: dict, kind: str, says: str, mend: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        make_rows(data, renderer(**options), kind=kind)  # type: ignore[arg-type]
    assert says in error.value.what
    assert mend in error.value.mend
    assert not list((tmp_path / "cache").rglob("*.*"))


def test_rows_are_made_once_and_again_when_anything_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    data, made = MANY[:8], renderer()
    first = make_rows(data, made, kind="pairs")
    keys = {
        first.fingerprint,
        make_rows(data[:7], made, kind="pairs").fingerprint,
        make_rows(data, renderer(max_length=99), kind="pairs").fingerprint,
        make_rows(data, renderer(None), kind="pairs").fingerprint,
        make_rows(data, made, kind="responses").fingerprint,
        make_rows(data, made, kind="responses", labelled=True).fingerprint,
        make_rows([paired("Other?", "a", "b"), *data[1:]], made, kind="pairs").fingerprint,
    }
    assert len(keys) == 7

    def never(*_: object, **__: object) -> int:
        raise AssertionError("made again")

    monkeypatch.setattr(room, "write_rows", never)
    second = make_rows(data, renderer(), kind="pairs")
    assert second.fingerprint == first.fingerprint
    assert second.report == first.report
    assert all(
        equal(a, b) for r, s in zip(first, second, strict=True) for a, b in zip(r.sequences, s.sequences, strict=True)
    )


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > 300:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_rows(MANY, renderer(), kind="pairs", progress=stop)
    assert not list((tmp_path / "cache").rglob("*.*"))
    seen: list[tuple[int, int]] = []
    make_rows(MANY, renderer(), kind="pairs", progress=lambda *at: seen.append(at))
    assert seen[-1] == (len(MANY), len(MANY))


def test_report_counts_bos_lengths_and_is_json() -> None:
    rows = make_rows(MANY, renderer(), kind="pairs")
    report = json.loads(json.dumps(rows.report.to_dict()))
    assert report["bos"] == {"1": 2 * len(MANY)}
    longest = max(len(s) for r in rows for s in r.sequences)
    responses = sorted(s.response_length for r in rows for s in r.sequences)
    assert report["lengths"]["sequence"]["max"] == longest
    assert report["lengths"]["response"]["median"] == float(np.median(responses))
    assert report["renderer"]["template"] == "chat"
    dropped = make_rows(MANY[:4], renderer("thinking-dropped"), kind="pairs").report
    assert dropped.out_of_context == 8
    assert any("another context" in line for line in dropped.lines())


def test_row_is_what_the_contract_says() -> None:
    row = make_rows(MANY[:1], renderer(), kind="pairs")[0]
    assert isinstance(row, Row)
    assert isinstance(make_rows(MANY[:1], renderer(), kind="pairs"), Rows)
    back = Row.from_arrow(row.to_arrow())
    assert all(equal(a, b) for a, b in zip(back.sequences, row.sequences, strict=True))


@pytest.mark.parametrize("chat", [None, "llama3"])
def test_real_pairs(real_data: Path, chat: str | None) -> None:
    from boresight.data.read import read

    examples = read(str(real_data / "hh-helpful" / "test.jsonl.gz"), limit=100)
    made = renderer(chat)
    rows = make_rows(examples, made, kind="pairs")
    assert len(rows) + sum(rows.report.dropped.values()) == 100
    for row in rows:
        example = examples[row.index]
        pair = views.pairs(example)[0]
        for tokens, place in zip(row.sequences, (pair.chosen, pair.rejected), strict=True):
            expected = example.responses[place].text
            assert answer(tokens, made) == (expected.strip() if chat else " " + expected)
        assert row.sequences[0].ids[0] == made.tokenizer.bos_token_id
