"""The reference store: what is put in comes out, survives kills, and is not believed when it was altered."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
from itertools import count

import numpy as np
import pytest

import tiny
from boresight.data.tokens import Tokens
from boresight.engine import ReferenceStore
from boresight.engine import store as store_module
from boresight.errors import RunError


def truth(sequence: Tokens) -> np.ndarray:
    """A stand-in reference: a different value for each token of each sequence."""
    seed = int.from_bytes(sequence.key()[:4], "little")
    return -np.random.default_rng(seed).random(sequence.response_length).astype(np.float32) * 10


class Compute:
    def __init__(self):
        self.keys: list[bytes] = []

    def __call__(self, sequences):
        self.keys += [s.key() for s in sequences]
        return [truth(s) for s in sequences]


def many(n: int, seed: int = 0) -> list[Tokens]:
    lengths = np.random.default_rng(seed).integers((1, 0), 9, (n, 2))
    return tiny.sequences([(int(p), int(r)) for p, r in lengths], seed=seed)


def check(store, sequences):
    got = store.get(sequences)
    assert got.count == len(sequences)
    assert str(got.values.dtype) == "torch.float32"
    np.testing.assert_array_equal(got.values.numpy(), np.concatenate([truth(s) for s in sequences]))
    assert got.lengths().tolist() == [s.response_length for s in sequences]
    assert bool((got.owner[1:] >= got.owner[:-1]).all())


def test_round_trip_bit_for_bit_in_any_order(tmp_path):
    sequences, compute = many(700), Compute()
    store = ReferenceStore(tmp_path, "a")
    assert store.fill(iter(sequences), compute, shard_tokens=500) == len({s.key() for s in sequences})
    assert len(list(store.path.glob("*.safetensors"))) > 1
    again = ReferenceStore(tmp_path, "a")
    assert len(again) == len({s.key() for s in sequences})
    order = np.random.default_rng(1).permutation(700)
    for opened in (store, again):
        check(opened, [sequences[i] for i in order])
        assert opened.missing(sequences) == []
    assert again.get([]).count == 0
    silent = next(s for s in sequences if s.response_length == 0)
    assert again.get([silent]).values.shape == (0,)


def test_only_what_is_missing_is_computed_and_duplicates_once(tmp_path):
    first, second = many(40), many(60, seed=1)
    compute, done = Compute(), []
    store = ReferenceStore(tmp_path, "a")
    store.fill([*first, *first], compute, progress=done.append)
    assert sum(done) == 80
    assert len(compute.keys) == len(set(compute.keys)) == 40
    lacking = store.missing([*first, *second, *second])
    assert [s.key() for s in lacking] == [s.key() for s in second]
    assert store.fill([*second, *first], compute) == 60
    assert len(compute.keys) == 100
    check(ReferenceStore(tmp_path, "a"), [*second, *first])


def test_the_same_ids_with_another_response_mask_are_another_sequence(tmp_path):
    """Pitfall 1: what was truncated or masked otherwise must not find the old values."""
    ids = np.arange(3, 11, dtype=np.int32)
    a, b = Tokens(ids, np.arange(8) >= 3, True), Tokens(ids, np.arange(8) >= 4, True)
    shorter = Tokens(ids[:7], np.arange(7) >= 3, False)
    store = ReferenceStore(tmp_path, "a")
    store.fill([a], Compute())
    assert [s.key() for s in store.missing([a, b, shorter])] == [b.key(), shorter.key()]
    with pytest.raises(RunError, match="number 1, key"):
        store.get([a, b])


def test_pitfall_1_neither_order_nor_settings_nor_another_model_are_confused(tmp_path):
    sequences, compute = many(30), Compute()
    ReferenceStore(tmp_path, "model-a").fill(sequences, compute)
    assert ReferenceStore(tmp_path, "model-a").fill(sequences[::-1], compute) == 0  # another order computes nothing
    assert len(ReferenceStore(tmp_path, "model-b")) == 0  # another model finds nothing
    assert len(ReferenceStore(tmp_path, "model-b").missing(sequences)) == 30


def test_streams(tmp_path, monkeypatch):
    """Memory is bounded by the block and the shard: at no time are more sequences drawn than that."""
    monkeypatch.setattr(store_module, "_BLOCK_SEQUENCES", 10)
    drawn = count()
    ahead: list[int] = []
    computed = 0

    def source():
        for s in many(200):
            next(drawn)
            yield s

    def compute(block):
        nonlocal computed
        ahead.append(int(repr(drawn)[6:-1]) - computed)
        computed += len(block)
        return [truth(s) for s in block]

    ReferenceStore(tmp_path, "a").fill(source(), compute, shard_tokens=50)
    assert max(ahead) <= 10


@pytest.mark.parametrize("moment", ["in compute", "before the rename", "after the rename"])
def test_killed_at_any_moment_leaves_whole_shards_and_goes_on(tmp_path, moment):
    script = textwrap.dedent(f"""
        import os, signal, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from pathlib import Path
        import test_engine_store as t
        from boresight.engine import ReferenceStore, store
        store._BLOCK_SEQUENCES = 50
        def kill(): os.kill(os.getpid(), signal.SIGKILL)
        replace, moment, calls = Path.replace, {moment!r}, []
        def renamed(self, target):
            calls.append(1)
            if moment == "before the rename" and len(calls) == 3: kill()
            replace(self, target)
            if moment == "after the rename" and len(calls) == 3: kill()
        Path.replace = renamed
        def compute(block):
            if moment == "in compute" and len(calls) == 2: kill()
            return [t.truth(s) for s in block]
        ReferenceStore({str(tmp_path)!r}, "a").fill(t.many(400), compute, shard_tokens=100)
    """)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    store, compute, sequences = ReferenceStore(tmp_path, "a"), Compute(), many(400)
    kept = len(store)
    assert kept == (150 if moment == "after the rename" else 100)
    assert store.fill(sequences, compute) == 400 - kept
    check(ReferenceStore(tmp_path, "a"), sequences)


def alter(path, how):
    data = bytearray(path.read_bytes())
    if how == "empty":
        data = bytearray()
    elif how == "cut":
        data = data[:-3]
    elif how == "cut in the header":
        data = data[:40]
    elif how == "one bit of a value":
        data[-200] ^= 1
    elif how == "header":
        data[10:14] = b"!!!!"
    else:
        data = bytearray(b"\xff" * 100)
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["empty", "cut", "cut in the header", "one bit of a value", "header", "noise"])
def test_damaged_shards_are_set_aside_and_computed_again(tmp_path, how, caplog):
    sequences = many(300)
    store = ReferenceStore(tmp_path, "a")
    store.fill(sequences[:150], Compute())
    (path,) = store.path.glob("shard-*")
    store.fill(sequences, Compute())
    alter(path, how)
    with caplog.at_level(logging.WARNING, "boresight"):
        opened = ReferenceStore(tmp_path, "a")
    assert len(caplog.records) == 1
    assert "is damaged" in caplog.text
    assert len(opened) == 150
    with pytest.raises(RunError, match="150 of 300 sequences have no reference"):
        opened.get(sequences)
    assert opened.fill(sequences, Compute()) == 150
    caplog.clear()
    check(ReferenceStore(tmp_path, "a"), sequences)
    assert not caplog.records


def test_verify_measures_and_refuses(tmp_path):
    sequences = many(50)
    store = ReferenceStore(tmp_path, "a")
    store.fill(sequences, Compute())
    assert store.verify(sequences, Compute()) == 0.0

    def shifted(block, by):
        values = [truth(s) for s in block]
        values[2][-1] += by
        return values

    assert store.verify(sequences, lambda b: shifted(b, 5e-4)) == pytest.approx(5e-4, rel=1e-2)
    with pytest.raises(RunError, match=r"sequence \d+ \(key [0-9a-f]{32}\).*0\.01 nats") as caught:
        store.verify(sequences, lambda b: shifted(b, 0.01))
    assert str(store.path) in caught.value.mend
    with pytest.raises(RunError, match="NaN"):
        store.verify(sequences, lambda b: shifted(b, np.nan))
    counted = Compute()
    store.verify(sequences, counted, sample=3, seed=5)
    again = Compute()
    store.verify(sequences, again, sample=3, seed=5)
    assert len(counted.keys) == 3
    assert counted.keys == again.keys
    assert ReferenceStore(tmp_path, "none").verify(sequences, Compute()) == 0.0


def test_what_the_reference_gets_wrong_is_not_stored(tmp_path):
    store = ReferenceStore(tmp_path, "a")
    with pytest.raises(RunError, match="NaN"):
        store.fill(many(5), lambda b: [truth(s) * np.float32(np.nan) for s in b])
    with pytest.raises(RunError, match="values of shape"):
        store.fill(many(5), lambda b: [truth(s)[1:] for s in b])
    assert len(ReferenceStore(tmp_path, "a")) == 0


def test_two_writers_and_refresh(tmp_path):
    a, b = ReferenceStore(tmp_path, "x"), ReferenceStore(tmp_path, "x")
    sequences = many(40)
    a.fill(sequences[:30], Compute())
    b.fill(sequences[10:], Compute())
    for store in (a, b):
        store.refresh()
        check(store, sequences)
        assert len(store) == 40


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "a").write_text("a file in the way")
    store = ReferenceStore(tmp_path, "a")
    with pytest.raises(RunError, match="cannot be written to"):
        store.fill(many(3), Compute())


def test_keys_that_end_in_zero_bytes_are_found(tmp_path):
    """Fixed-width strings drop trailing zeros when read back; the search must not care."""
    store = ReferenceStore(tmp_path, "a")
    keys = sorted([bytes(16), b"\1" + bytes(15), bytes(15) + b"\1", b"\xff" * 16, b"\1" * 15 + b"\0"])
    store._write({key: np.array([i], np.float32) for i, key in enumerate(keys)})
    opened = ReferenceStore(tmp_path, "a")
    assert [float(opened._value(int(p))[0]) for p in opened._find(keys)] == [0, 1, 2, 3, 4]
    assert opened._find([b"\2" + bytes(15)]).tolist() == [-1]
