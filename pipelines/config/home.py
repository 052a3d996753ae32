"""TODO docstring."""

import os
import sys
from pathlib import Path


def default_home() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/amocrm-mirror")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "amocrm-mirror"
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    base = data if data.is_absolute() else Path.home() / ".local" / "share"
    return base / "amocrm-mirror"


def make_home(home: Path) -> None:
    """Private, but root's must be passable: Postgres never runs as root."""
    home.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
