"""Dagster's code location under a name of its own: `dagster dev -m amocrm_mirror.definitions`."""

from __future__ import annotations

import amocrm_mirror.module_path  # noqa: F401  # first: it decides what `pipelines` is
from pipelines.definitions import defs

__all__ = ["defs"]
