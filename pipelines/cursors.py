"""TODO docstring."""

from __future__ import annotations

from typing import Any

Position = dict[str, Any]
"""Where a list resumes: {"watermark": unix seconds}, and while a sweep runs {"sweep": {...}}."""


AGAIN = "again"
"""In a position: the next sync reads the list whole, as if it were a full one."""
