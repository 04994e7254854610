"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

# The same examples in every run: what a draw finds is written down as a test, not met by chance.
hypothesis.settings.register_profile("boresight", deadline=None)
hypothesis.settings.load_profile("boresight")

torch.set_num_threads(1)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def data_folder() -> Path | None:
    """The real data: BORESIGHT_DATA, or ../shared/data beside the project; None where it is absent."""
    places = [os.environ.get("BORESIGHT_DATA"), str(Path(__file__).parents[2] / "shared" / "data")]
    return next((Path(p) for p in places if p and Path(p).is_dir()), None)


@pytest.fixture(autouse=True)
def _own_register() -> Iterator[None]:
    """Objectives that a test registers are gone when it ends."""
    from boresight.objectives import _registry, objectives

    objectives()
    before = dict(_registry._REGISTER)
    yield
    _registry._REGISTER.clear()
    _registry._REGISTER.update(before)


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = data_folder()
    if folder is None:
        if os.environ.get("CI"):
            pytest.fail("the real data is absent: set BORESIGHT_DATA")
        pytest.skip("the real data is absent: set BORESIGHT_DATA")
    return folder
