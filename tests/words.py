"""The few words that most tests' texts are made of."""

from __future__ import annotations

import numpy as np

TEXT = "the cat sat on a warm mat and saw two small dogs run after one red ball in the garden of my old house"
WORDS = TEXT.split()


def sentence(rng: np.random.Generator, least: int = 1, most: int = 9) -> str:
    """`least` to `most` - 1 words, drawn alike."""
    return " ".join(rng.choice(WORDS, int(rng.integers(least, most))))
