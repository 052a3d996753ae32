"""`amocrm-mirror accounts export` and `import`: one account in one file, with its rows, its memory (cursors,
hints, runs, erased people, webhook inbox) and its tokens, which stay encrypted.

The file is a zip: `manifest.json`, and per table the text form of COPY, which every PostgreSQL from 15 on
reads. An import is one transaction.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier
from sqlalchemy import Table

from models.base import AccountBase, MirrorBase
from pipelines.access.encryption import DecryptionError, Encryption
from pipelines.accounts import registry
from pipelines.accounts.registry import AccountRecord
from pipelines.accounts.state import check_single_name
from pipelines.admin.manage_accounts import drop_new_schema, has_schema
from pipelines.admin.rotate_keys import SECRET_COLUMNS
from pipelines.bi import all_accounts, builder
from pipelines.config.settings import validate_schema_name
from pipelines.errors import SyncRefusedError, UsageError
from pipelines.installation import Installation
from pipelines.migrate import migrate, require_tables
from pipelines.orchestration.instance import open_instance
from pipelines.postgres.locks import sync_lock

Connection = psycopg.Connection[Any]
FORMAT = 1
MANIFEST = "manifest.json"
LEFT_OUT = ("rate_budgets", "alerts")
"""Tables of `mirror` that say nothing about the account elsewhere: the rate of a host, and what people of
this installation were told."""
TOKEN_TABLES = ("tokens", "unproven_tokens")
KEYS_OF_ACCOUNT = ("name", "schema_name", "account")
"""Columns that hold the account's name: the import gives it its own."""
READ_REVISIONS = """
SELECT 'mirror', version_num FROM mirror.alembic_version UNION ALL SELECT 'account', version_num FROM {}"""
WRONG_KEY = (
    "the tokens in {path} are encrypted with a key that this installation does not have. Nothing was "
    "changed. Set MIRROR_KEY to this installation's key, a comma, and the key of the installation that wrote "
    "the file (MIRROR_KEY there, or mirror.key in its MIRROR_HOME), and import again; or leave the tokens "
    "out (--without-tokens) and give access with `amocrm-mirror auth --account {name}`")
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Part:
    """A table in the file: where it is (`account` or `mirror`), and the columns that the file holds of it."""

    place: str
    table: Table
    columns: tuple[str, ...]

    @property
    def member(self) -> str:
        return f"{self.place}/{self.table.name}.copy"

    def named(self, schema: str) -> Identifier:
        return Identifier(schema if self.place == "account" else "mirror", self.table.name)

    @property
    def column_list(self) -> Composable:
        return SQL(", ").join(map(Identifier, self.columns))


def parts() -> list[Part]:
    """Every table of an account, parents before children. Numbers that Postgres gives to rows of `mirror`
    stay behind: in another database they are another row's."""
    own = [table for table in MirrorBase.metadata.sorted_tables if table.name not in LEFT_OUT]
    return [*(Part("mirror", table, tuple(column.name for column in table.columns
                                          if not column.identity and column.name not in KEYS_OF_ACCOUNT))
              for table in own),
            *(Part("account", table, tuple(table.columns.keys()))
              for table in AccountBase.metadata.sorted_tables)]


# Export


def export_account(mirror: Installation, name: str, path: Path) -> Iterator[str]:
    """Writes the account into a new file, which only its owner can read, and yields the lines to print. All
    tables are of one moment. Raises SyncRefusedError while a sync runs, and UsageError."""
    account = _existing(mirror, name)
    require_tables(mirror.conninfo, account.schema)
    with mirror.connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        if not sync_lock(name).try_hold_until_commit(connection):
            raise SyncRefusedError(f"a sync of the account {name!r} is running: wait for it to end, then run "
                                   "this again. Nothing was written")
        _refuse_live_refresh_token(connection, account)
        partial = path.with_name(f"{path.name}.part")
        try:
            with os.fdopen(_create(path, partial), "wb") as file:
                yield from _write(connection, account, file)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
    yield (f"{path}: {path.stat().st_size / 1e6:,.1f} MB. It holds people's data, readable, and tokens, "
           "encrypted with this installation's key. In the other installation: "
           f"`amocrm-mirror accounts import {path.name}`. Then, here: `amocrm-mirror accounts remove {name}`")


def _existing(mirror: Installation, name: str) -> AccountRecord:
    with mirror.connect() as connection:
        found = next((each for each in registry.all_accounts(connection) if each.name == name), None)
    if found is None:
        raise UsageError(f"there is no account {name!r} here: `amocrm-mirror accounts list` lists the "
                         "accounts")
    return found


def _refuse_live_refresh_token(connection: Connection, account: AccountRecord) -> None:
    row = connection.execute("SELECT 1 FROM mirror.tokens WHERE account = %s AND refresh_token IS NOT NULL",
                             [account.name]).fetchone()
    if row is not None and not account.paused:
        raise SyncRefusedError(
            f"the tokens of {account.name!r} are an OAuth pair, which works in one place only: the next sync "
            "here would make those in the file useless. Nothing was written. Run `amocrm-mirror accounts "
            f"pause {account.name}`, then this again")


def _create(path: Path, partial: Path) -> int:
    if path.exists():
        raise UsageError(f"{path} exists, and is left as it is: choose another name")
    partial.unlink(missing_ok=True)
    return os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _write(connection: Connection, account: AccountRecord, file: Any) -> Iterator[str]:
    counts: dict[str, int] = {}
    revisions = dict(connection.execute(
        SQL(READ_REVISIONS).format(Identifier(account.schema, "alembic_version"))).fetchall())
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for part in parts():
            counts[part.member] = _write_table(connection, account, part, archive)
            if counts[part.member]:
                yield f"{part.table.name}: {counts[part.member]:,} rows"
        manifest = {"format": FORMAT, "account": account.name, "base_url": account.base_url,
                    "account_id": account.account_id, "revisions": revisions, "rows": counts,
                    "columns": {part.member: part.columns for part in parts()}}
        archive.writestr(MANIFEST, json.dumps(manifest, indent=1))


def _write_table(connection: Connection, account: AccountRecord, part: Part, archive: zipfile.ZipFile) -> int:
    key = "name" if part.table.name == "accounts" else "account"
    of_account: Composable = SQL("")
    if part.place == "mirror":
        of_account = SQL(" WHERE {} = {}").format(Identifier(key), account.name)
    order = SQL(", ").join(Identifier(column.name) for column in part.table.primary_key)
    query = SQL("COPY (SELECT {} FROM {}{} ORDER BY {}) TO STDOUT").format(
        part.column_list, part.named(account.schema), of_account, order)
    rows = 0
    with archive.open(part.member, "w", force_zip64=True) as member, connection.cursor() as cursor, \
            cursor.copy(query) as copy:
        for block in copy:
            rows += bytes(block).count(b"\n")
            member.write(block)
    return rows


# Import


def import_account(mirror: Installation, path: Path, name: str, with_tokens: bool) -> Iterator[str]:
    """Makes the account of the file an account of this database, and yields the lines to print. `name`: empty
    for the one that it had. Raises UsageError or SyncRefusedError, and then nothing has changed."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _import(mirror, Source(path, archive), name, with_tokens)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, psycopg.DataError) as reason:
        raise SyncRefusedError(f"{path} is no file of `amocrm-mirror accounts export`, or not whole "
                               f"({_fault(reason)}). Nothing was changed. Export or copy it again") from None


def _fault(reason: Exception) -> str:
    """Returns what is wrong with a file. Postgres' messages quote a row: they are not repeated."""
    return "a row that Postgres does not take" if isinstance(reason, psycopg.Error) else str(reason)


class Source:
    """A file of `export`, with its manifest. Raises SyncRefusedError for a file of another form."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self.archive = path, archive
        try:
            found = json.loads(archive.read(MANIFEST))
            self.account, self.base_url = str(found["account"]), str(found["base_url"])
            self.account_id: int | None = found["account_id"]
            self.revisions: dict[str, str] = found["revisions"]
            self.rows: dict[str, int] = found["rows"]
            self.columns: dict[str, list[str]] = found["columns"]
            is_known = found["format"] == FORMAT
        except (KeyError, TypeError, ValueError):
            raise zipfile.BadZipFile("no manifest") from None
        if not is_known:
            raise SyncRefusedError(f"{path} was written by a newer amocrm-mirror. Nothing was changed. "
                                   "Update this installation, then import again")

    def check_revisions(self, own: dict[str, str | None]) -> None:
        if self.revisions != own or {each.member: list(each.columns) for each in parts()} != self.columns:
            raise SyncRefusedError(
                f"{self.path} was written by another version of amocrm-mirror: its tables are at "
                f"{self.revisions}, those of this program at {own}. Nothing was changed. Bring both "
                "installations to one version (`amocrm-mirror migrate`), export, and import again")


def _import(mirror: Installation, source: Source, given: str, with_tokens: bool) -> Iterator[str]:
    name = given or source.account
    _refuse_taken_name(mirror, source, name)
    was_there = has_schema(mirror, name)
    report = migrate(mirror.conninfo, name)
    try:
        source.check_revisions(report.after)
        with mirror.connect() as connection:
            yield from _load(connection, source, name, Encryption(mirror.settings.encryption_keys()),
                             with_tokens)
    except BaseException:
        if not was_there:
            drop_new_schema(mirror, name)
        raise
    with mirror.connect_autocommit() as connection:
        builder.build_views(connection, name)
        yield from all_accounts.refresh(connection).kept
    open_instance(mirror, name).dispose()
    yield f"{name}: imported, {sum(source.rows.values()):,} rows; schedules take it up by themselves"
    yield from _next_steps(source, name, with_tokens)


def _refuse_taken_name(mirror: Installation, source: Source, name: str) -> None:
    try:
        validate_schema_name(name, "the account's name")
    except ValueError as reason:
        raise UsageError(str(reason)) from None
    with mirror.connect() as connection:
        accounts = registry.all_accounts(connection)
        if accounts:
            check_single_name(connection, name, source.base_url, source.account_id)
        if name in [each.name for each in accounts]:
            raise UsageError(f"there is an account {name!r} here already. Nothing was changed. Remove it "
                             "first, or import under another name: --name")
        row = connection.execute("SELECT to_regclass(%s)", [f'"{name}".accounts']).fetchone()
        if row and row[0] and connection.execute(SQL("SELECT 1 FROM {} LIMIT 1").format(
                Identifier(name, "accounts"))).fetchone():
            raise UsageError(f"the schema {name!r} holds the rows of an account already. Nothing was "
                             "changed. Drop it, or import under another name: --name")


def _load(connection: Connection, source: Source, name: str, encryption: Encryption,
          with_tokens: bool) -> Iterator[str]:
    """Loads every table, in one transaction: first those of `mirror`, so that a wrong key shows at once."""
    for part in parts():
        if part.place == "account" or with_tokens or part.table.name not in TOKEN_TABLES:
            load = _load_mirror_table if part.place == "mirror" else _load_table
            rows = load(connection, source, part, name)
            if rows != source.rows[part.member]:
                raise zipfile.BadZipFile(f"{part.table.name}: {rows} of {source.rows[part.member]} rows")
            if rows:
                yield f"{part.table.name}: {rows:,} rows"
        if part.table.name in TOKEN_TABLES and part.place == "mirror":
            _encrypt_again(connection, source, part, name, encryption)
    connection.execute("UPDATE mirror.accounts SET paused_at = NULL WHERE name = %s", [name])
    connection.execute(SQL("UPDATE {} SET digest = NULL").format(Identifier(name, "bi_views")))
    connection.commit()


def _load_table(connection: Connection, source: Source, part: Part, name: str) -> int:
    connection.execute(SQL("DELETE FROM {}").format(part.named(name)))
    return _copy(connection, source, part, part.named(name))


def _load_mirror_table(connection: Connection, source: Source, part: Part, name: str) -> int:
    moved = Identifier("pg_temp", "moved")
    connection.execute(SQL("CREATE TEMP TABLE moved ON COMMIT DROP AS SELECT {} FROM {} WHERE false").format(
        part.column_list, part.named(name)))
    rows = _copy(connection, source, part, moved)
    keys = [column.name for column in part.table.columns if column.name in KEYS_OF_ACCOUNT]
    connection.execute(SQL("INSERT INTO {} ({}, {}) SELECT {}, {} FROM {}").format(
        part.named(name), SQL(", ").join(map(Identifier, keys)), part.column_list,
        SQL(", ").join([SQL("{}").format(name)] * len(keys)), part.column_list, moved))
    connection.execute(SQL("DROP TABLE {}").format(moved))
    return rows


def _copy(connection: Connection, source: Source, part: Part, target: Identifier) -> int:
    statement = SQL("COPY {} ({}) FROM STDIN").format(target, part.column_list)
    with source.archive.open(part.member) as member, connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            while block := member.read(BLOCK_BYTES):
                copy.write(block)
        return cursor.rowcount


def _encrypt_again(connection: Connection, source: Source, part: Part, name: str,
                   encryption: Encryption) -> None:
    """Encrypts the secrets with this installation's first key. Raises SyncRefusedError if none of its keys
    reads them."""
    table, key = part.named(name), Identifier(part.table.primary_key.columns.values()[0].name)
    secrets = SQL(", ").join(map(Identifier, SECRET_COLUMNS))
    try:
        for row in connection.execute(SQL("SELECT {}, {} FROM {} WHERE account = {}").format(
                key, secrets, table, name)).fetchall():
            own = [each and encryption.encrypt(encryption.decrypt(each)) for each in row[1:]]
            connection.execute(SQL("UPDATE {} SET ({}) = ROW(%s, %s, %s) WHERE {} = %s").format(
                table, secrets, key), [*own, row[0]])
    except DecryptionError:
        raise SyncRefusedError(WRONG_KEY.format(path=source.path, name=name)) from None


def _next_steps(source: Source, name: str, with_tokens: bool) -> Iterator[str]:
    if not with_tokens:
        yield f"it has no access yet: `amocrm-mirror auth --account {name}`"
    if source.rows.get("mirror/webhook_addresses.copy"):
        yield ("its webhook still goes to the installation that it came from: `amocrm-mirror webhooks "
               f"subscribe --account {name} --url https://…`")
    yield (f"compare it with amoCRM: `amocrm-mirror verify --account {name}`. Then remove it where it came "
           f"from: `amocrm-mirror accounts remove {source.account}`")
