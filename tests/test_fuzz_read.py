"""The fuzz run of the readers works, finds a planted fault, and finds nothing in twenty seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "fuzz" / "read_fuzz.py"
sys.path.insert(0, str(SCRIPT.parent))

import read_fuzz  # noqa: E402


def test_every_seed_is_read_or_refused_cleanly():
    target = read_fuzz.Target()
    for seed in read_fuzz.seeds():
        target(seed)
    target.close()
    assert target.read > 50
    assert target.refused < target.read / 10, "seeds are whole files"
    assert not target.folder.exists()


def test_a_reader_that_raises_anything_else_is_found(monkeypatch, tmp_path, capsys):
    from boresight.data import files

    def careless(line: bytes) -> object:
        return files.json.loads(line)

    monkeypatch.setattr(files, "_decoded", careless)
    monkeypatch.setattr(read_fuzz, "FOUND", tmp_path / "found")
    assert read_fuzz.plain(2, seed=3) > 0
    assert "JSONDecodeError" in capsys.readouterr().err
    assert list((tmp_path / "found").iterdir())


def test_mutations_reach_every_kind_of_file_and_repeat():
    import random

    source = read_fuzz.seeds()
    made = [read_fuzz.mutated(source, random.Random(k)) for k in range(400)]
    assert made == [read_fuzz.mutated(source, random.Random(k)) for k in range(400)]
    assert {data[0] % len(read_fuzz.KINDS) for data in made} >= {0, 1, 2, 3, 4}
    assert len(set(made)) > 390


@pytest.mark.slow
def test_twenty_seconds_of_it_find_nothing():
    words = [sys.executable, str(SCRIPT), "--plain", "--minutes", str(20 / 60), "--seed", "7"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert " 0 failed" in done.stdout
