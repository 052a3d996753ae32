"""The folder of local data (MIRROR_HOME): where it is, and how files are written there."""

import os
import sys
from pathlib import Path


def default_home() -> Path:
    """Returns the folder of the embedded Postgres and the key file when MIRROR_HOME is not set."""
    if os.geteuid() == 0:
        return Path("/var/lib/amocrm-mirror")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "amocrm-mirror"
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    base = data if data.is_absolute() else Path.home() / ".local" / "share"
    return base / "amocrm-mirror"


def make_home(home: Path) -> None:
    """Creates the folder, for its owner only; root's is passable for others, because Postgres never runs as
    root."""
    home.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
