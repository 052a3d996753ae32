"""The key that encrypts secrets at rest: MIRROR_KEY or a file of mode 0600."""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet

from pipelines.config.home import make_home, write_atomically

KEY_FILE = "mirror.key"


def parse_fernet_keys(text: str, source: str) -> list[bytes]:
    """Parses keys separated by commas. Raises ValueError; `source` names their origin in the message."""
    keys = [key.strip().encode() for key in text.split(",") if key.strip()]
    try:
        are_valid = keys and all(len(base64.urlsafe_b64decode(key)) == 32 for key in keys)
    except (ValueError, binascii.Error):
        are_valid = False
    if not are_valid:
        raise ValueError(
            f"{source} does not hold Fernet keys: use the output of "
            '`python -c "from cryptography.fernet import Fernet; '
            'print(Fernet.generate_key().decode())"` (several: comma between them).'
        )
    return keys


def create_key_file(path: Path) -> None:
    """Creates the key file with one new key, unless another process has just done so."""
    make_home(path.parent)
    write_atomically(path, Fernet.generate_key(), overwrite=False)


def replace_key_file(path: Path, keys: Sequence[bytes]) -> None:
    """Replaces the keys in the key file; the first encrypts, all decrypt."""
    write_atomically(path, b",".join(keys))
