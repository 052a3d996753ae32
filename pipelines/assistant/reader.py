"""Connections as the BI role. Each is checked before it is used: it may read the account's two schemas, and
has no further rights in this database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from pipelines.accounts.registry import existing_schemas
from pipelines.admin.reader_role import EXCESS_PRIVILEGES
from pipelines.errors import SyncRefusedError
from pipelines.postgres.connections import open_connection
from pipelines.schema.names import ALL_ACCOUNTS_SCHEMA, bi_schema

Connection = psycopg.Connection[Any]
QUERY_SECONDS = 15
"""Seconds that a statement may take."""
LOCK_SECONDS = 2
MAX_AT_ONCE = 4
"""Connections of one server. A client may ask for more at once, and waits."""
FURTHER_RIGHTS = """
SELECT 'being a superuser' FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)
UNION ALL SELECT 'membership of ' || r.rolname FROM pg_roles r
WHERE r.rolname <> current_user AND pg_has_role(current_user, r.oid, 'MEMBER')
UNION ALL SELECT 'reading ' || n.nspname FROM pg_namespace n
WHERE n.nspname <> ALL(%(schemas)s) AND has_schema_privilege(n.oid, 'USAGE')
  AND (n.nspname = %(all)s OR EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace own ON own.oid = c.relnamespace
    WHERE c.relname = 'bi_views' AND n.nspname IN (own.nspname, own.nspname || '_bi')))"""
"""Rights that lead beyond one account, besides those of EXCESS_PRIVILEGES."""
SETTINGS = """
BEGIN READ ONLY; SET LOCAL statement_timeout = {query}; SET LOCAL lock_timeout = {lock};
SET LOCAL idle_in_transaction_session_timeout = {query}; SET LOCAL search_path = {schemas};
SET LOCAL row_security = on"""
"""Row security is on: where the owner limits what the role sees, the assistant sees that much."""


@dataclass(frozen=True)
class Reader:
    """The BI role's access to one account. `conninfo`: its address, with its password."""

    conninfo: str
    schema: str
    _free: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MAX_AT_ONCE))

    def check(self) -> None:
        """Raises SyncRefusedError if the role may do more than read this account, or cannot read it."""
        with self.session():
            pass

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """Opens a connection of the role, in a READ ONLY transaction that is rolled back at the end. A
        connection serves one call: nothing that a query leaves in its session reaches the next one."""
        with self._free, open_connection(self.conninfo, autocommit=True) as connection:
            schemas = self._checked_schemas(connection)
            connection.execute(SQL(SETTINGS).format(
                query=Literal(f"{QUERY_SECONDS}s"), lock=Literal(f"{LOCK_SECONDS}s"),
                schemas=SQL(", ").join(map(Identifier, schemas))))
            try:
                yield connection
            finally:
                if not connection.closed:
                    connection.execute("ROLLBACK")

    def _checked_schemas(self, connection: Connection) -> list[str]:
        """Returns the account's schemas that exist, that of its views first."""
        schemas = sorted(existing_schemas(connection, self.schema),
                         key=lambda name: name != bi_schema(self.schema))
        if self.schema not in schemas:
            raise SyncRefusedError(f"there is no schema {self.schema!r} in the database of MIRROR_READER_URL"
                                   ": name the account with --account, or run `amocrm-mirror sync` first")
        parameters = {"role": connection.info.user, "schemas": schemas, "all": ALL_ACCOUNTS_SCHEMA}
        excess = [row[0] for statement in (EXCESS_PRIVILEGES, FURTHER_RIGHTS)
                  for row in connection.execute(statement.encode(), parameters).fetchall()]
        if excess:
            raise SyncRefusedError(
                f"the role of MIRROR_READER_URL may do more than read this account: {', '.join(excess[:5])}"
                f"{' …' if excess[5:] else ''}. Make a role of its own with `amocrm-mirror grants --account "
                f"{self.schema} --role NAME`, and set MIRROR_READER_URL to the address that it prints")
        return schemas
