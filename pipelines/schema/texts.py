"""The texts that people read in the database and in the dictionary, in English and in Russian.

English is where the text is used: the comment of a model's column, the comment behind a column of an SQL
file. `russian.json` has the Russian next to it, one line a text: the same English has the same Russian
everywhere. A test holds that none is missing, and none is left over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

ENGLISH, RUSSIAN = "en", "ru"
_language: ContextVar[str] = ContextVar("language", default=ENGLISH)


def translate(text: str, language: str) -> str:
    """The text in the language; in English, if there is no other."""
    return russian_texts().get(text, text) if language == RUSSIAN else text


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Within the block, `say` answers in this language."""
    token = _language.set(language)
    try:
        yield
    finally:
        _language.reset(token)


def say(text: str, *values: object) -> str:
    """The text in the language of the block of `speaking`, with the values in the place of each `{}`."""
    found = translate(text, _language.get())
    return found.format(*values) if values else found


@cache
def russian_texts() -> dict[str, str]:
    """English text → the Russian one."""
    path = Path(__file__).parent / "russian.json"
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found
