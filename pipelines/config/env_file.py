"""The file `.env`: whether it can be read, and which names it sets. A file that cannot be read whole is
refused: otherwise the program would go on without the settings behind the fault."""

from __future__ import annotations

import codecs
import io
from dataclasses import dataclass
from pathlib import Path

from dotenv.parser import Binding, parse_stream

UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SAVE_AS_UTF_8 = "save it as UTF-8 (in Notepad: Save as, Encoding: UTF-8)"


class EnvFileError(ValueError):
    """The file cannot be read. The message names the file and the line, and quotes no value."""


@dataclass(frozen=True)
class EnvName:
    """A name that the file sets, and the line on which it does."""

    name: str
    line: int


def read_env_names(path: Path) -> list[EnvName]:
    """Returns the names that the file sets; none if there is no file. Raises EnvFileError."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as reason:
        raise EnvFileError(f"{path} cannot be read ({reason.strerror}): make it a file that this user may "
                           f"read, `chmod 600 {path}`") from None
    text = _decode(path, raw)
    names = [_checked(path, binding) for binding in parse_stream(io.StringIO(text))]
    return [name for name in names if name]


def _decode(path: Path, raw: bytes) -> str:
    if raw.startswith(UTF_16_MARKS) or b"\0" in raw:
        raise EnvFileError(f"{path}, line 1, is not UTF-8 but probably UTF-16: {SAVE_AS_UTF_8}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        line = raw.count(b"\n", 0, reason.start) + 1
        raise EnvFileError(f"{path}, line {line}, is not UTF-8 but probably Windows-1251: {SAVE_AS_UTF_8}"
                           ) from None


def _checked(path: Path, binding: Binding) -> EnvName | None:
    """Returns the name that a statement sets; None for a comment. A value of several lines is refused: no
    setting has one, and it comes from a quote that is not closed on its line."""
    text = binding.original.string
    line = binding.original.line + text[:len(text) - len(text.lstrip())].count("\n")
    if "\0" in (binding.value or ""):
        raise EnvFileError(f"{path}, line {line}, holds a zero byte: write the line again")
    if binding.error or "\n" in (binding.value or ""):
        raise EnvFileError(f"{path}, line {line}, is not NAME=value: close the quote that it opens, or write "
                           "the value in single quotes ('…')")
    if binding.key and binding.value is None:
        raise EnvFileError(f"{path}, line {line}, has no = behind the name: write NAME=value")
    return EnvName(binding.key, line) if binding.key else None
