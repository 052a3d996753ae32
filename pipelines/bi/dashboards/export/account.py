"""What an export says of an account: its name, language, currency and zone, the columns of the marts, and the
values that tiles are repeated by. It asks for no figure, and for no person's name."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from pipelines.bi.dashboards.spec import Page, Tile
from pipelines.bi.dashboards.words import language_of
from pipelines.bi.placeholders import PLACEHOLDER_MARK
from pipelines.bi.state import view_faults
from pipelines.bi.view_files import view_file
from pipelines.errors import SyncRefusedError
from pipelines.schema.names import bi_schema

Connection = psycopg.Connection[Any]
NAMESPACE = uuid.UUID("6f1d1a5e-7c34-5d43-9d1c-2c1f6c3b8a70")
"""Of the ids of everything that is exported. Another one would be other dashboards."""
MAX_REPEATS = 50
"""Tiles that one declared tile is repeated into: those with the largest figures."""
MAX_NAME = 100
"""Characters of an account's or a field's name in a title."""
SELECT_ACCOUNT = """
SELECT a.id, coalesce(nullif(a.name, ''), nullif(a.subdomain, ''), a.id::text), coalesce(a.currency, ''),
       coalesce(a.timezone, 'UTC'), a.country, m.base_url
FROM {}.accounts a LEFT JOIN mirror.accounts m ON m.schema_name = %s LIMIT 1"""
SELECT_COLUMNS = """
SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod),
       coalesce(col_description(c.oid, a.attnum), ''), coalesce(obj_description(c.oid, 'pg_class'), '')
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('v', 'm') AND c.relname = ANY(%s)
ORDER BY c.relname, a.attnum"""
SELECT_REPEATS = """
SELECT {id}, max({name}) FROM {view} WHERE {id} IS NOT NULL
GROUP BY 1 ORDER BY {size} DESC NULLS LAST, 1 LIMIT {limit}"""


@dataclass(frozen=True)
class Column:
    """A column of a mart as the database has it."""

    name: str
    type: str
    comment: str = ""

    @property
    def is_date(self) -> bool:
        return self.type.startswith(("date", "timestamp"))


@dataclass(frozen=True)
class ExportedAccount:
    schema: str
    id: int
    name: str
    currency: str
    """ISO code; empty: the account says none."""
    zone: str
    language: str
    url: str
    """Address of the database for the role that reads it, without a password."""
    has_tls: bool = False
    """The mirror's own connection is encrypted."""
    columns: dict[str, tuple[Column, ...]] = field(default_factory=dict)
    """Mart → its columns."""
    repeats: dict[str, tuple[tuple[int, str], ...]] = field(default_factory=dict)
    """Tile → (id, name) of each value that it is repeated by."""
    faults: dict[str, str] = field(default_factory=dict)
    """Mart → why it cannot be read, or shows an older state."""

    @property
    def title(self) -> str:
        return shortened(self.name)

    def uuid(self, *names: object) -> str:
        """The id of a thing of this account: the same in each export, whatever it is called."""
        return str(uuid.uuid5(NAMESPACE, "/".join(map(str, (self.id, self.schema, *names)))))


def shortened(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME - 1]}…"


def read_account(
    connection: Connection, schema: str, pages: Iterable[Page], url: str, language: str | None = None
) -> ExportedAccount:
    """Reads the account in one transaction. Without a `language` it is that of the account's country. Raises
    SyncRefusedError if the account was not read yet."""
    tiles = [tile for page in pages for tile in page.tiles]
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        row = connection.execute(SQL(SELECT_ACCOUNT).format(Identifier(schema)), [schema]).fetchone()
        if row is None:
            raise SyncRefusedError(
                f"nothing was written: the account in the schema {schema} was not read yet. Run "
                "`amocrm-mirror sync`, then this command again")
        ident, name, currency, zone, country, base_url = row
        columns, faults = _columns(connection, schema, {tile.mart for tile in tiles})
        repeats = {
            tile.name: _repeats(connection, schema, tile)
            for tile in tiles
            if tile.repeat and tile.mart not in faults}
        return ExportedAccount(
            schema,
            ident,
            name,
            currency,
            zone,
            language or language_of(country, base_url),
            url,
            bool(connection.pgconn.ssl_in_use),
            columns,
            repeats,
            {view: why for view, why in view_faults(connection, schema).items() if view in columns} | faults)


def _columns(
    connection: Connection, schema: str, marts: set[str]
) -> tuple[dict[str, tuple[Column, ...]], dict[str, str]]:
    """Returns mart → its columns, and mart → why it has no rows. The columns of a view that is missing are
    those of its file."""
    found: dict[str, list[Column]] = {}
    faults = {}
    for mart, name, type_, comment, of_view in connection.execute(
        SELECT_COLUMNS, [bi_schema(schema), sorted(marts)]).fetchall():
        found.setdefault(mart, []).append(Column(name, type_, comment))
        if PLACEHOLDER_MARK in of_view:
            faults[mart] = "it has no rows since an update, because it could not be rebuilt"
    for mart in sorted(marts - set(found)):
        found[mart] = [Column(name, "text") for name in view_file("marts", mart).columns]
        faults[mart] = "it does not exist"
    return {mart: tuple(columns) for mart, columns in sorted(found.items())}, faults


def id_column(tile: Tile) -> str:
    """The column that tells the values apart by which the tile is repeated."""
    assert tile.repeat is not None
    return f"{tile.repeat.column}_id"


def _repeats(connection: Connection, schema: str, tile: Tile) -> tuple[tuple[int, str], ...]:
    """Returns (id, name) of the values with the largest figures, by id: so their order stays."""
    assert tile.repeat is not None
    rows = connection.execute(
        SQL(SELECT_REPEATS).format(
            id=Identifier(id_column(tile)),
            name=Identifier(tile.repeat.column),
            view=Identifier(bi_schema(schema), tile.mart),
            size=SQL(tile.measures[0].sum),
            limit=SQL(str(MAX_REPEATS)))).fetchall()
    return tuple(sorted((ident, shortened(name or str(ident))) for ident, name in rows))
