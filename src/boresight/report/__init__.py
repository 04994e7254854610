"""Reports of runs: one self-contained page for any number of them, and the same pages live on this machine.

Everything that is shown comes out of a template with escaping on; no page holds a script or asks for anything.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boresight.report.serve import view as view
    from boresight.report.write import Report as Report
    from boresight.report.write import report as report

_WHERE = {"Report": "boresight.report.write", "report": "boresight.report.write", "view": "boresight.report.serve"}

__all__ = ["Report", "report", "view"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'boresight.report' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
