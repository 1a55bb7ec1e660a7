"""Compares every way to differentiate a solve; see :func:`odeum.gradient.audit`."""

from odeum.audit.compare import audit
from odeum.audit.table import Audit, Row

__all__ = ["Audit", "Row", "audit"]
