"""Importing this module makes `models`, `pipelines` and `sandbox` mean this program's, whatever folders of
these names the working folder or PYTHONPATH holds. It imports nothing of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
OWN = ("models", "pipelines", "sandbox")


class ModuleHiddenError(ImportError):
    """A package of another program has taken the name of one of ours in this process."""


class OwnPackages(MetaPathFinder):
    """Finds this program's top-level packages next to this one, before anything else is looked at."""

    def find_spec(self, fullname: str, path: Sequence[str] | None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, [str(ROOT)]) if fullname in OWN else None


def hidden_message(name: str, place: str) -> str:
    return (f"amocrm-mirror cannot start in this process: {place} is loaded under the name {name!r}, which "
            "is also a package of amocrm-mirror. Nothing was changed. Run it in a process of its own: "
            "`amocrm-mirror code-server`, and in workspace.yaml a grpc_server with its host and port; or "
            "rename that folder")


def check_loaded() -> None:
    """Raises ModuleHiddenError if this process has already loaded another program's package of our name."""
    for name in OWN:
        loaded = sys.modules.get(name)
        places = list(getattr(loaded, "__path__", ())) or [getattr(loaded, "__file__", None) or name]
        if loaded is not None and str(ROOT / name) not in map(_resolved, places):
            raise ModuleHiddenError(hidden_message(name, str(places[0])))


def _resolved(place: str) -> str:
    return str(Path(place).resolve())


check_loaded()
if not any(type(each).__name__ == OwnPackages.__name__ for each in sys.meta_path):
    sys.meta_path.insert(0, OwnPackages())
