"""mirror.cursors: where each list of an account resumes."""

from __future__ import annotations

from typing import Any

Position = dict[str, Any]
"""Where a list resumes: {"watermark": unix seconds}, and while a sweep is in progress {"sweep": {...}}."""


FULL_READ_DUE = "again"
"""Key in a position: the next sync reads the whole list, as a full sync would."""
