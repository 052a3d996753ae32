"""Writes the files of an export. Files of an earlier run that are no longer part of it are removed; a file
that another hand wrote is neither replaced nor removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.config.home import write_atomically
from pipelines.errors import UsageError

MARK = "Written by `amocrm-mirror dashboards"
"""Every file of an export holds it."""


@dataclass(frozen=True)
class WrittenFiles:
    """How many files were written, were already so, and were removed."""

    written: int
    unchanged: int
    removed: int


def write_files(folder: Path, texts: Mapping[str, str], own: Iterable[str]) -> WrittenFiles:
    """Writes path → text below the folder. `own`: patterns of the files that belong to this export alone:
    those that it no longer has are removed. Raises UsageError, before anything is written, if a file is not
    this command's, and if the folder is not writable."""
    try:
        before = {name: _read(folder / name) for name in texts}
        if foreign := [str(folder / name) for name, old in before.items() if old and MARK not in old]:
            raise UsageError(
                f"{', '.join(foreign[:3])}{' …' if foreign[3:] else ''}: this command did not write it, and "
                "does not replace it. Nothing was written. Move it away, or give another folder with --out")
        stale = _stale(folder, set(texts), own)
        changed = [name for name, text in texts.items() if before[name] != text]
        for name in changed:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, texts[name].encode(), mode=0o666)
        for path in stale:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # the folder holds more
                path.parent.rmdir()
    except OSError as reason:
        raise UsageError(
            f"{folder} cannot be written into ({reason.strerror or reason}): give another folder with --out"
        ) from reason
    return WrittenFiles(len(changed), len(texts) - len(changed), len(stale))


def _read(path: Path) -> str:
    """The text of a file; empty if there is none."""
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _stale(folder: Path, texts: set[str], own: Iterable[str]) -> list[Path]:
    found = {path for pattern in own for path in folder.glob(pattern) if path.is_file()}
    return sorted(
        path for path in found if path.relative_to(folder).as_posix() not in texts and MARK in _read(path))
