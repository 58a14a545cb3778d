"""The report: one self-contained page and its text version, built from files alone."""

from finepref.report.page import report

__all__ = ["report"]
