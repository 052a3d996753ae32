"""What a program writes to standard error, for people or, with `--log-format json`, for a log collector: then
every line is a JSON object with time, level, message and the id of the run, whatever wrote it."""

from __future__ import annotations

import datetime
import io
import json
import logging
import secrets
import sys
from collections.abc import Callable
from functools import partial
from typing import IO, Any

from pipelines.errors import describe_fault

LIBRARIES = ("uvicorn", "alembic")
"""Libraries that would log a webhook's secret address or a delivery's body: limited to warnings."""
log = logging.getLogger("amocrm-mirror")


class Choice:
    """What `--log-format` says; empty: as the setting says."""

    format = ""


class JsonLog:
    """The log of this process as JSON lines. `run_id` is in every line."""

    def __init__(self, out: IO[str], run_id: str) -> None:
        self.out, self.run_id = out, run_id or secrets.token_hex(8)

    def write(self, at: float, level: str, message: str, **fields: Any) -> None:
        moment = datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds")
        line = {"time": moment, "level": level, "run": self.run_id, "message": message} | fields
        self.out.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
        self.out.flush()


class JsonHandler(logging.Handler):
    """Writes records of `logging`. Their `fields`, a dict, become attributes of the object. Of a
    traceback only the place is written: it may quote a person's data."""

    def __init__(self, log_: JsonLog) -> None:
        super().__init__()
        self.json_log = log_

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = {"logger": record.name} | getattr(record, "fields", {})
            if record.exc_info and record.exc_info[1]:
                fields["fault"] = describe_fault(record.exc_info[1])
            self.json_log.write(record.created, record.levelname.lower(), record.getMessage(), **fields)
        except Exception:
            self.handleError(record)


class JsonLines(io.TextIOBase):
    """In place of standard error: each line that anything writes becomes a JSON object."""

    def __init__(self, log_: JsonLog) -> None:
        super().__init__()
        self.json_log, self._begun = log_, ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def fileno(self) -> int:
        return self.json_log.out.fileno()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in filter(str.strip, lines):
            at = datetime.datetime.now(datetime.UTC).timestamp()
            self.json_log.write(at, "info", line.rstrip())
        return len(text)


def is_json() -> bool:
    """True if standard error holds JSON lines."""
    return isinstance(sys.stderr, JsonLines)


def child_environment() -> dict[str, str]:
    """Returns the variables with which a child process writes into the same log."""
    if not isinstance(sys.stderr, JsonLines):
        return {"MIRROR_LOG_FORMAT": "text"}
    return {"MIRROR_LOG_FORMAT": "json", "MIRROR_RUN_ID": sys.stderr.json_log.run_id}


def use_json(run: str) -> None:
    """Makes every line on standard error a JSON object from now on, of this process and of `logging`. `run`:
    the id of the run; empty makes a new one."""
    if is_json():
        return
    json_log = JsonLog(sys.stderr, run)
    logging.getLogger().addHandler(JsonHandler(json_log))
    log.setLevel(logging.INFO)
    sys.stderr = JsonLines(json_log)


def forked_log() -> Callable[[], None] | None:
    """Returns what makes a forked process write into the same log; None while the log is text."""
    return partial(use_json, sys.stderr.json_log.run_id) if isinstance(sys.stderr, JsonLines) else None


def configure_logging() -> None:
    """Shows what servers log, from INFO on."""
    if is_json():
        logging.getLogger().setLevel(logging.INFO)
    else:
        logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, stream=sys.stderr)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
