"""Entry point of the command `amocrm-mirror`, and of `python -m amocrm_mirror`."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        import amocrm_mirror.module_path  # noqa: F401  # first: it decides what `pipelines` is
    except ImportError as reason:
        sys.exit(str(reason))
    try:
        from pipelines.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit("amocrm-mirror: interrupted; nothing was changed")
    run()


if __name__ == "__main__":
    main()
