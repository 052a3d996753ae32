"""Standard streams that never end a command with a traceback: whatever the locale, a character that cannot be
shown is replaced; a stream that was closed reads and writes nothing; a reader that went away, or a full
device, ends a command that prints its result, but not a sync that reports its progress."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from contextlib import suppress
from typing import IO, Any

from pipelines.errors import MirrorError


class OutputLostError(MirrorError):
    """The result could not be written. The message is empty if its reader has gone away."""


class ResultStream(io.TextIOWrapper):
    """Standard output. A failed write raises OutputLostError, once."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as reason:
            raise self._lost(reason) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as reason:
            raise self._lost(reason) from None

    def _lost(self, reason: OSError) -> OutputLostError:
        drain_into_null(self)
        return OutputLostError("" if reason.errno == errno.EPIPE else
                               f"the output could not be written ({reason.strerror}): make room there, or "
                               "send it to another file, and run the command again")


class MessageStream(io.TextIOWrapper):
    """Standard error: messages and progress. What cannot be written is dropped."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            drain_into_null(self)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            drain_into_null(self)


def drain_into_null(stream: IO[Any]) -> None:
    """Sends what a stream still holds, and all that follows, nowhere: the interpreter flushes it once more at
    its end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, stream.fileno())
        os.close(null)


def prepare_streams() -> None:
    """Replaces the standard streams. Opens descriptors 0, 1 and 2 where they were closed: else the next file
    or connection would get their number, and messages would be written into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    if sys.stdin is None:
        sys.stdin = sys.__stdin__ = os.fdopen(0, encoding="utf-8")  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _wrap(sys.stdout, 1, ResultStream)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _wrap(sys.stderr, 2, MessageStream)  # type: ignore[misc]
    logging.lastResort = WithoutTraceback(logging.WARNING)
    with suppress(AttributeError, OSError, ValueError):
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]


class WithoutTraceback(logging.StreamHandler[IO[str]]):
    """Writes log messages to standard error, as it is then, without the traceback of an error: the message
    itself says what happened."""

    def __init__(self, level: int) -> None:
        super().__init__(sys.stderr)
        self.setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage()


def message_copy(stream: IO[str]) -> IO[str]:
    """Returns a stream on a copy of the descriptor of `stream`, standard error or standard output, which
    Dagster redirects during a run. What cannot be written to it is dropped."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return MessageStream(os.fdopen(os.dup(stream.fileno()), "wb"), encoding, "replace", line_buffering=True)


def has_descriptor(stream: IO[str]) -> bool:
    """True if the stream is a file of the operating system."""
    try:
        stream.fileno()
    except (OSError, AttributeError, ValueError):
        return False
    return True


def _wrap(stream: Any, number: int, kind: type[ResultStream | MessageStream]) -> Any:
    if stream is None:
        return kind(os.fdopen(number, "wb"), "utf-8", "replace")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    encoding, buffered = stream.encoding, stream.line_buffering
    stream.flush()
    return kind(stream.detach(), encoding, "replace", line_buffering=buffered)
