"""A role that may read the account's tables and views, and nothing else: for BI tools and for people who write SQL.

Everything is one transaction: where a right is missing nothing has changed, and the same statements are shown for somebody who has it. A
password never reaches Postgres as it is, only as its SCRAM verifier, so no log of the server's can hold it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal

from pipelines.bi import all_accounts
from pipelines.errors import SyncRefused

Connection = psycopg.Connection[Any]
MEMORY = "mirror"
LONGEST = 63
KNOWN = "SELECT rolsuper, rolcanlogin, rolname = current_user FROM pg_roles WHERE rolname = %s"
OWNERS = """
SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class WHERE relnamespace = %(schema)s::text::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
UNION SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = %(schema)s::text ORDER BY 1"""
ALL = "relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname = ANY(%(schemas)s)) AND relkind IN ('r', 'p', 'v', 'm')"
UNREADABLE = f"SELECT min(oid::regclass::text) FROM pg_class WHERE {ALL} AND NOT has_table_privilege(%(role)s, oid, 'SELECT')"
REACHES = f"""
SELECT 'making roles, or copying the whole server' FROM pg_roles WHERE rolname = %(role)s AND (rolcreaterole OR rolreplication)
UNION ALL SELECT 'new schemas' WHERE has_database_privilege(%(role)s, current_database(), 'CREATE')
UNION ALL SELECT 'the schema ' || nspname FROM pg_namespace
WHERE nspname = 'mirror' AND (has_schema_privilege(%(role)s, oid, 'USAGE') OR has_schema_privilege(%(role)s, oid, 'CREATE'))
UNION ALL SELECT 'new tables in ' || nspname FROM pg_namespace WHERE nspname = ANY(%(schemas)s) AND has_schema_privilege(%(role)s, oid, 'CREATE')
UNION ALL SELECT 'writing ' || oid::regclass FROM pg_class WHERE {ALL} AND has_table_privilege(%(role)s, oid, 'INSERT, UPDATE, DELETE, TRUNCATE')"""
MAY_CREATE = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_temp_' AND has_schema_privilege(%s, oid, 'CREATE')"


class NeedsAdministrator(SyncRefused):
    """Our own role has not the rights; `sql` is what somebody with them can run instead."""

    def __init__(self, message: str, sql: str) -> None:
        super().__init__(message)
        self.sql = sql


@dataclass
class Granted:
    """What was done. `url` holds the password only where it was made here."""

    role: str
    created: bool
    url: str
    schemas: list[str]
    notes: list[str] = field(default_factory=list)


def made_password() -> str:
    return secrets.token_urlsafe(24)


def fault_of(role: str) -> str:
    """Why that cannot be the role's name; an empty string: it can."""
    if not role or len(role.encode()) > LONGEST or not role.isprintable():
        return f"{role!r} is no name of a role: take 1 to {LONGEST} bytes that can be printed"
    if role.startswith("pg_") or role in ("public", "none"):
        return f"Postgres keeps {role!r} for itself: choose another name with --role"
    return ""


def grant(connection: Connection, schema: str, role: str, password: str | None, is_made: bool) -> Granted:
    """Creates or updates the role. `password` None: the one that it has stays. Raises SyncRefused, or NeedsAdministrator with the SQL."""
    schemas = _schemas(connection, schema)
    if schema not in schemas:
        cure = "it comes with the second account" if schema == all_accounts.SCHEMA else "run `amocrm-mirror migrate`"
        raise SyncRefused(f"there is no schema {schema!r} yet: {cure}, then run this again")
    known = connection.execute(KNOWN, [role]).fetchone()
    if known and (known[0] or known[2]):
        raise SyncRefused(f"{role!r} is {'a superuser' if known[0] else 'the role of the mirror itself'}, which cannot be made to read only. Nothing "
                          "was changed; choose another name with --role")
    can_login = known[1] if known else None
    try:
        with connection.transaction():
            for statement in statements(connection, schemas, role, can_login):
                connection.execute(statement)
            _secure(connection, role, password)
            _check(connection, role, schemas)
    except psycopg.errors.InsufficientPrivilege as reason:
        raise NeedsAdministrator(
            f"Postgres refused: {reason.diag.message_primary or reason}. Nothing was changed. Have an administrator of the database run what "
            f"is printed above, then set the password: in psql, \\password {role}", _script(connection, schemas, role, can_login)) from None
    return Granted(role, known is None, address(connection, role, password if is_made else None), schemas, _notes(connection, schema, role, schemas))


def statements(connection: Connection, schemas: list[str], role: str, can_login: bool | None) -> Iterator[Composed]:
    """What makes the role read these schemas, and nothing else of ours. It may all run again. `can_login` None: there is no such role."""
    who, database = Identifier(role), Identifier(connection.info.dbname)
    if not can_login:
        yield SQL("{} ROLE {} LOGIN").format(SQL("CREATE" if can_login is None else "ALTER"), who)
    yield SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, who)
    if can_login is not None:
        for place in [*schemas, MEMORY]:
            yield SQL("REVOKE ALL ON SCHEMA {} FROM {}").format(Identifier(place), who)
            yield SQL("REVOKE ALL ON ALL TABLES IN SCHEMA {} FROM {}").format(Identifier(place), who)
    for place in schemas:
        yield SQL("GRANT USAGE ON SCHEMA {} TO {}").format(Identifier(place), who)
        yield SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(Identifier(place), who)
        for owner, in connection.execute(OWNERS, {"schema": place}).fetchall():
            yield SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} GRANT SELECT ON TABLES TO {}").format(
                Identifier(owner), Identifier(place), who)


def address(connection: Connection, role: str, password: str | None) -> str:
    """A URL for any client, of the server that this connection is to; without a password where that is not ours to show."""
    info, who = connection.info, quote(role, safe="")
    user = f"{who}:{quote(password, safe='')}" if password else who
    options = {"sslmode": info.get_parameters()["sslmode"]} if "sslmode" in info.get_parameters() else {}
    if info.host.startswith("/"):
        return f"postgresql://{user}@/{quote(info.dbname, safe='')}?" + urlencode({"host": info.host, "port": info.port} | options)
    host = f"[{info.host}]" if ":" in info.host else info.host
    return f"postgresql://{user}@{host}:{info.port}/{quote(info.dbname, safe='')}" + ("?" + urlencode(options) if options else "")


def _schemas(connection: Connection, schema: str) -> list[str]:
    rows = connection.execute("SELECT nspname::text FROM pg_namespace WHERE nspname = ANY(%s) ORDER BY 1", [[schema, f"{schema}_bi"]]).fetchall()
    return [row[0] for row in rows]


def _secure(connection: Connection, role: str, password: str | None) -> None:
    if password is not None:
        verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
        connection.execute(SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(role), Literal(verifier)))


def _check(connection: Connection, role: str, schemas: list[str]) -> None:
    """Rights that come from elsewhere (another role, PUBLIC) are not ours to take: then the role is not what it is asked for as."""
    about = {"role": role, "schemas": schemas}
    reached = [row[0] for row in connection.execute(REACHES.encode(), about).fetchall()]
    if reached:
        raise SyncRefused(f"{role!r} would still reach more than it should: {', '.join(reached[:5])}{' …' if reached[5:] else ''}. It has that right "
                          "from elsewhere: from a role that it is a member of, from PUBLIC, or as an owner. Nothing was changed; take that right "
                          "away, or choose another name with --role")
    unreadable = connection.execute(UNREADABLE.encode(), about).fetchone()
    if unreadable and unreadable[0]:
        raise psycopg.errors.InsufficientPrivilege(f"{unreadable[0]} is not ours to grant")


def _script(connection: Connection, schemas: list[str], role: str, can_login: bool | None) -> str:
    return "".join(f"{statement.as_string(connection)};\n" for statement in statements(connection, schemas, role, can_login))


def _notes(connection: Connection, schema: str, role: str, schemas: list[str]) -> list[str]:
    elsewhere = [row[0] for row in connection.execute(MAY_CREATE, [role]).fetchall()]
    has_bi = f"{schema}_bi" in schemas or schema == all_accounts.SCHEMA
    notes = [] if has_bi else [f"The schema {schema}_bi does not exist yet: run this again when it does."]
    return notes + ([f"It may create tables in {', '.join(elsewhere)}, as everybody may: REVOKE CREATE ON SCHEMA … FROM PUBLIC takes that."]
                    if elsewhere else [])
