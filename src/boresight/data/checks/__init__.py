"""What can be wrong with feedback data: one file for a finding, or for a few of one family."""

from boresight.data.checks._base import SEVERITIES, Check, Finding, Kind, Looked, Setting, Severity, checks
from boresight.data.checks._columns import Columns

__all__ = ["SEVERITIES", "Check", "Columns", "Finding", "Kind", "Looked", "Setting", "Severity", "checks"]
