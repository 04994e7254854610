"""The reference store: per-token log-probs on disk, computed once, found again by what they are of.

    <folder>/<fingerprint>/shard-<checksum>.safetensors      keys (n, 16) uint8, sorted; offsets (n + 1,) int64;
                                                             values (tokens,) float32

The fingerprint names the model that computed them (weights, adapter, dtype, engine version); a key names one
sequence's ids and response mask. Per-token values serve every objective, and nothing about the data set's order, the
learning rate or the objective is in the address, because nothing of it is in the values. Shards are written aside and
renamed, and never changed. A shard whose checksum fails is set aside with a warning and its values count as missing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from boresight.data.tokens import Tokens
from boresight.engine.shards import Damaged, Shard, read_shard, write_shard
from boresight.errors import InputError, RunError
from boresight.objectives import LogProbs

log = logging.getLogger(__name__)

Values = NDArray[np.float32]
Compute = Callable[[list[Tokens]], list[Values]]

_BLOCK_SEQUENCES, _BLOCK_TOKENS = 256, 1 << 18
"""How much is given to `compute` at once: enough to sort by length, little enough to hold."""
_FLUSH_SECONDS = 60.0
"""A shard is written at least this often, so that a killed run loses a minute."""


class ReferenceStore:
    """The log-probs of one reference, in `folder`/`fingerprint`. Made on first use; any number may read.

    Looks up by binary search over sorted keys (about 60 bytes of memory for each sequence); values stay on disk and are
    mapped. Raises RunError from `get` and `verify`, never returns a value that it is not sure of.
    """

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        if Path(folder).exists() and not Path(folder).is_dir():
            raise InputError(f"store={folder} is a file", mend="name a folder, or leave store away")
        self.path = Path(folder) / fingerprint
        self._shards: list[Shard] = []
        self._open: set[str] = set()
        self._keys = np.zeros(0, "S16")
        self._shard = np.zeros(0, np.int32)
        self._row = np.zeros(0, np.int64)
        self.refresh()

    def __len__(self) -> int:
        return self._keys.size

    def refresh(self) -> None:
        """Take in the shards that others have written since."""
        for path in sorted(self.path.glob("shard-*.safetensors")):
            if path.name in self._open:
                continue
            try:
                self._shards.append(read_shard(path))
                self._open.add(path.name)
            except Damaged as reason:
                log.warning("%s is damaged (%s): set aside, its log-probs are computed again", path, reason)
                with suppress(OSError):  # another process was first, or the folder is read-only
                    path.replace(path.with_name(path.name + ".damaged"))
        self._index()

    def _index(self) -> None:
        if not self._shards:
            return
        keys = np.concatenate([shard.keys for shard in self._shards])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first = np.ones(keys.size, np.bool_)
        first[1:] = keys[1:] != keys[:-1]
        order = order[first]
        sizes = [shard.keys.size for shard in self._shards]
        self._keys = keys[first]
        self._shard = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)[order]
        self._row = np.concatenate([np.arange(size, dtype=np.int64) for size in sizes])[order]

    def _find(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """Where each key is in the index, or -1."""
        wanted = np.asarray(keys, "S16")
        if not self._keys.size or not wanted.size:
            return np.full(wanted.size, -1, np.int64)
        place = np.searchsorted(self._keys, wanted).clip(max=self._keys.size - 1)
        return np.where(self._keys[place] == wanted, place, -1)

    def _value(self, place: int) -> Values:
        shard, row = self._shards[self._shard[place]], self._row[place]
        return shard.values[shard.offsets[row] : shard.offsets[row + 1]]

    def missing(self, sequences: Iterable[Tokens]) -> list[Tokens]:
        """Those of `sequences` that are not in the store, in order, each once."""
        return [s for block in _blocks(sequences) for s in self._lacking(block, set())]

    def _lacking(self, block: list[Tokens], known: set[bytes]) -> Iterator[Tokens]:
        keys = [s.key() for s in block]
        for sequence, key, place in zip(block, keys, self._find(keys), strict=True):
            if place < 0 and key not in known:
                known.add(key)
                yield sequence

    def fill(
        self,
        sequences: Iterable[Tokens],
        compute: Compute,
        *,
        shard_tokens: int = 1 << 22,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Compute what is missing and keep it; returns how many sequences were computed.

        sequences: streamed, so they need not fit in memory. compute: (list of sequences) -> their per-token log-probs,
        as `token_values` returns them. A shard is written each `shard_tokens` response tokens, each minute, and at
        the end; what was written before a kill is found again. `progress(n)` is called with the number of sequences
        dealt with, those that were there already included.
        Raises RunError if `compute` returns NaN or the wrong number of values, naming the sequence.
        """
        pending: dict[bytes, Values] = {}
        known: set[bytes] = set()
        tokens, computed, seen, since = 0, 0, 0, time.monotonic()
        for block in _blocks(sequences):
            wanted = list(self._lacking(block, known))
            for sequence, values in zip(wanted, compute(wanted) if wanted else [], strict=True):
                pending[sequence.key()] = _checked(sequence, values, seen)
                tokens += sequence.response_length
            computed += len(wanted)
            if tokens >= shard_tokens or (pending and time.monotonic() - since >= _FLUSH_SECONDS):
                self._write(pending)
                pending, known, tokens, since = {}, set(), 0, time.monotonic()
            seen += len(block)
            if progress is not None:
                progress(len(block))
        if pending:
            self._write(pending)
        return computed

    def _write(self, pending: dict[bytes, Values]) -> None:
        path = write_shard(self.path, pending)
        if path.name not in self._open:
            self._shards.append(read_shard(path))
            self._open.add(path.name)
        self._index()

    def get(self, sequences: Sequence[Tokens]) -> LogProbs:
        """The stored log-probs of `sequences`, on CPU, fp32. Raises RunError if one is missing, naming it."""
        places = self._find([s.key() for s in sequences])
        if (places < 0).any():
            i = int(np.argmin(places))
            raise RunError(
                f"{int((places < 0).sum())} of {len(sequences)} sequences have no reference log-probs in {self.path}; "
                f"the first is number {i}, key {sequences[i].key().hex()}",
                mend="fill the store with all data before it is read",
            )
        values = [self._value(int(place)) for place in places]
        flat = np.concatenate([np.zeros(0, np.float32), *values])
        owner = np.repeat(np.arange(len(values)), [v.size for v in values])
        return LogProbs(torch.from_numpy(flat), torch.from_numpy(owner.astype(np.int64)), len(values))

    def verify(
        self,
        sequences: Sequence[Tokens],
        compute: Compute,
        *,
        sample: int = 8,
        seed: int = 0,
        tolerance: float = 1e-3,
    ) -> float:
        """Compute a random sample of what is stored again; returns the largest difference of one token, in nats.

        Of `sequences`, those that are in the store are drawn from (0 if there is none). tolerance: 1e-3 suits fp32,
        where another batch changes the rounding; a `Reference` knows the one for its dtype.
        Raises RunError that names the sequence and the difference where it is larger, or the lengths differ.
        """
        order = np.random.default_rng(seed).permutation(len(sequences))
        drawn: list[tuple[int, int]] = []
        for i in order.tolist():
            if len(drawn) == sample:
                break
            place = int(self._find([sequences[i].key()])[0])
            if place >= 0 and sequences[i].response_length:
                drawn.append((i, place))
        fresh = compute([sequences[i] for i, _ in drawn]) if drawn else []
        worst = 0.0
        for (i, place), now in zip(drawn, fresh, strict=True):
            stored, now = self._value(place), _checked(sequences[i], now, 0)
            residual = float(np.abs(stored - now).max()) if stored.shape == now.shape else float("inf")
            if not residual <= tolerance:
                raise RunError(
                    f"sequence {i} (key {sequences[i].key().hex()}): its stored reference log-probs differ from the "
                    f"reference's by {residual:.3g} nats at a token, more than {tolerance:g}; {self.path} is stale or "
                    "was altered",
                    mend=f"delete {self.path} and run again: the store is rebuilt",
                )
            worst = max(worst, residual)
        return worst


def _blocks(sequences: Iterable[Tokens]) -> Iterator[list[Tokens]]:
    block: list[Tokens] = []
    tokens = 0
    for sequence in sequences:
        block.append(sequence)
        tokens += len(sequence)
        if len(block) >= _BLOCK_SEQUENCES or tokens >= _BLOCK_TOKENS:
            yield block
            block, tokens = [], 0
    if block:
        yield block


def _checked(sequence: Tokens, values: Any, seen: int) -> Values:
    values = np.asarray(values, np.float32)
    if values.shape != (sequence.response_length,) or np.isnan(values).any():
        wrong = "NaN" if values.shape == (sequence.response_length,) else f"values of shape {values.shape}"
        raise RunError(
            f"the reference gave {wrong} for a sequence of {sequence.response_length} response tokens "
            f"(key {sequence.key().hex()}, one of the {_BLOCK_SEQUENCES} after number {seen})",
            mend="check the reference model's weights and dtype",
        )
    return values
