"""Micro-batches made ready in the background: the same ones, errors in their place, no thread left."""

# ruff: noqa: F811  (fixtures of test_train are used by name)
from __future__ import annotations

import threading
import time

import pytest
import torch

from boresight.training import ahead
from boresight.training.ahead import Ahead
from test_train import _own_cache, base, go, prefs, timeless, weights  # noqa: F401  (fixtures)


def alive() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("boresight-ahead")]


def test_the_next_is_made_while_this_one_is_used():
    made, main = [], threading.get_ident()
    started = threading.Event()

    def prepare(key: int) -> tuple[int, bool]:
        made.append(key)
        if key == 2:
            started.set()
        return key * 10, threading.get_ident() == main

    one = Ahead(prepare)
    assert one.get(1, [2, 3, 4]) == (10, False)
    assert started.wait(10)  # though 2 was not asked for yet
    assert one.get(2, [3, 4]) == (20, False)
    assert one.get(3, [4]) == (30, False)
    assert one.get(4) == (40, False)
    assert made == [1, 2, 3, 4]  # each once; no more than one ahead
    assert len(alive()) == 1
    one.close()
    assert alive() == []
    assert one.get(5) == (50, False)  # and it may begin anew
    one.close()


def test_what_is_not_asked_for_after_all_is_dropped():
    made = []
    one = Ahead(lambda key: made.append(key) or key)
    assert one.get("a", ["b"]) == "a"
    assert one.get("c", ["a"]) == "c"  # memory ran out, and the micro-batches are others now
    assert one.get("a", ["a"]) == "a"
    assert one.get("a") == "a"
    assert made.count("a") == 3
    one.close()


def test_an_error_comes_where_its_key_is_asked_for():
    def prepare(key: int) -> int:
        if key == 2:
            raise KeyError("row 2")
        return key

    one = Ahead(prepare)
    assert one.get(1, [2]) == 1
    time.sleep(0.05)  # it has failed by now, and nobody has asked
    assert one.get(3, [4]) == 3
    with pytest.raises(KeyError, match="row 2"):
        one.get(2, [3])
    assert one.get(4) == 4
    one.close()


def test_none_ahead(monkeypatch):
    monkeypatch.setattr(ahead, "DEPTH", 0)
    main = threading.get_ident()
    one = Ahead(lambda key: (key, threading.get_ident() == main))
    assert one.get(1, [2]) == (1, True)
    assert alive() == []


@pytest.mark.parametrize("words", [{"method": "dpo"}, {"method": "kto"}, {"method": "bt-reward"}], ids=str)
def test_a_run_is_the_same_to_the_bit_with_and_without(base, prefs, tmp_path, monkeypatch, words):
    words |= {"max_steps": 4, "micro_tokens": 120, "micro_batch": None, "eval_data": prefs, "eval_every": 2}
    go(base, prefs, tmp_path / "with", **words)
    monkeypatch.setattr(ahead, "DEPTH", 0)
    go(base, prefs, tmp_path / "without", **words)
    assert timeless(tmp_path / "with") == timeless(tmp_path / "without")
    a, b = weights(tmp_path / "with"), weights(tmp_path / "without")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert alive() == []


def test_an_error_in_the_background_ends_the_run_and_names_the_rows(base, prefs, tmp_path, monkeypatch):
    from boresight.engine.store import ReferenceStore
    from boresight.errors import RunError

    real, calls = ReferenceStore.get, 0

    def get(self, sequences):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise RunError("the shard is gone")
        return real(self, sequences)

    monkeypatch.setattr(ReferenceStore, "get", get)
    with pytest.raises(RunError, match="the shard is gone") as caught:
        go(base, prefs, tmp_path / "run", max_steps=9, proof="off", micro_batch=4)
    assert "prefs.jsonl:" in caught.value.__notes__[0]
    assert alive() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_no_thread_is_left_by_an_error_or_an_interrupt(base, prefs, tmp_path, monkeypatch, error):
    import boresight.training.step as step

    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr(step, "weighted_loss", stop)
    with pytest.raises(error):
        go(base, prefs, tmp_path / "run", max_steps=2, proof="off")
    assert alive() == []
