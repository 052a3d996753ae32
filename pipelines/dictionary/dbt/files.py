"""Writes the files of an account into a dbt project, in a folder of the account: sources.yml, exposures.yml.
A file that another hand wrote is never touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import yaml  # type: ignore[import-untyped]
from psycopg.sql import SQL, Identifier

from pipelines.accounts.language import account_language
from pipelines.bi.builder import own_views, views_of_mirror_state
from pipelines.config.home import write_atomically
from pipelines.dictionary.dbt.exposures import exposures
from pipelines.dictionary.dbt.sources import Account, AssetKeys, Yaml, sources
from pipelines.dictionary.from_database import bi_relations
from pipelines.errors import UsageError
from pipelines.schema.names import bi_schema

MARK = "# Written by `amocrm-mirror dbt`"
HEAD = (MARK + " for the account {}: its next run replaces what is changed here.\n"
        "# Needs dbt 1.10.8 or later.\n")
OWNER = "SELECT coalesce(nullif(name, ''), nullif(subdomain, ''), id::text) FROM {}.accounts LIMIT 1"
ABSENT = "SELECT list FROM {}.freshness WHERE state = 'skipped' AND NOT is_there"


@dataclass(frozen=True)
class DbtFiles:
    """What the files hold, before they are written."""

    account: Account
    sources: list[Yaml]
    exposures: list[Yaml]

    @property
    def tests(self) -> int:
        return sum(len(column.get("data_tests", ())) for source in self.sources
                   for table in source["tables"] for column in table["columns"])

    @property
    def texts(self) -> dict[str, str]:
        """File name → its text."""
        return {"sources.yml": self._text({"version": 2, "sources": self.sources}),
                "exposures.yml": self._text({"version": 2, "exposures": self.exposures})}

    def _text(self, content: Yaml) -> str:
        return HEAD.format(self.account.schema) + str(yaml.dump(
            content, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=110))


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes equal values out, each in its place, instead of referring from one to the other."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_multi_representer(str, lambda dumper, name: dumper.represent_str(str(name)))  # SQLAlchemy's names


def read_account(connection: psycopg.Connection[Any], schema: str, fresh_hours: float) -> tuple[Account, str]:
    """Returns what the files say of an account, and its name. The views must be up to date."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        own = set(own_views(connection, schema))
        absent = connection.execute(SQL(ABSENT).format(Identifier(bi_schema(schema)))).fetchall() \
            if views_of_mirror_state() & own else []
        owner = connection.execute(SQL(OWNER).format(Identifier(schema))).fetchone()
        account = Account(schema, tuple(bi_relations(connection, bi_schema(schema))),
                          frozenset(each for each, in absent), account_language(connection, schema),
                          fresh_hours)
    return account, owner[0] if owner else schema


def dbt_files(account: Account, keys: AssetKeys, owner: str, email: str = "") -> DbtFiles:
    return DbtFiles(account, sources(account, keys), exposures(account, owner, email))


def write_files(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Writes the texts, and returns their paths. Raises UsageError, before anything is written, if one of the
    files is not this command's, and if the folder is not writable."""
    paths = {folder / name: text for name, text in texts.items()}
    try:
        if foreign := [str(path) for path in paths if path.exists() and not _is_own(path)]:
            raise UsageError(f"{', '.join(foreign)}: this command did not write it, and does not replace it. "
                             "Nothing was written. Move it away, or give another folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in paths.items():
            write_atomically(path, text.encode(), mode=0o666)
    except OSError as reason:
        raise UsageError(f"{folder} cannot be written into ({reason.strerror or reason}): give another "
                         "folder with --out") from reason
    return list(paths)


def _is_own(path: Path) -> bool:
    return path.is_file() and path.read_bytes().startswith(MARK.encode())
