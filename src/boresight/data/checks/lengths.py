"""How long prompts and responses are."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from boresight.data.checks._base import Check, Looked


class Lengths(Check):
    """Facts only: characters of prompts and responses. What truncation does is told by `tokens`."""

    def __init__(self, setting) -> None:  # type: ignore[no-untyped-def]
        super().__init__(setting)
        self.prompts, self.responses = array("q"), array("q")

    def look(self, row: Looked) -> None:
        """Characters."""
        self.prompts.append(len(row.example.prompt_text))
        for response in row.example.responses:
            self.responses.append(len(response.text))

    def facts(self) -> dict[str, Any]:
        """Quantiles."""
        from boresight.data.rowreport import quantiles

        named = (("prompt_characters", self.prompts), ("response_characters", self.responses))
        return {name: quantiles(np.asarray(values)) for name, values in named}
