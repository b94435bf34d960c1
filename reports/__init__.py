"""What comes out: tables in the paper's shape, ours beside the paper's, and the paper's claims judged.

Reads a store and never writes into it; needs neither torch nor a cluster. ``clever.reports.collect`` gives all numbers
to pandas.
"""

from clever.reports.claims import judge
from clever.reports.formats import FORMATS, render, write
from clever.reports.model import Report
from clever.reports.report import build, check, claims_json, complete, status_json, to_json
from clever.reports.tables import build_table

__all__ = [
    "FORMATS",
    "Report",
    "build",
    "build_table",
    "check",
    "claims_json",
    "complete",
    "judge",
    "render",
    "status_json",
    "to_json",
    "write",
]
