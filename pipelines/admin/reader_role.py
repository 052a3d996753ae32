"""Creates or updates a database role that may only read an account's tables and views, for BI tools and for
people who write SQL.

Everything runs in one transaction. If our own role lacks a privilege, nothing is changed and the statements
are shown, so that a database administrator can run them. A password is sent to Postgres only as its SCRAM
verifier, so it cannot appear in the server's logs.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal

from pipelines.accounts.registry import existing_schemas
from pipelines.errors import SyncRefusedError
from pipelines.postgres.preflight import hidden_tables, quoted, shortened
from pipelines.schema.names import ALL_ACCOUNTS_SCHEMA, bi_schema

Connection = psycopg.Connection[Any]
MIRROR_SCHEMA = "mirror"
MAX_NAME_BYTES = 63
SELECT_ROLE = "SELECT rolsuper, rolcanlogin, rolname = current_user FROM pg_roles WHERE rolname = %s"
TABLE_OWNERS = """
SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class
WHERE relnamespace = %(schema)s::text::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
UNION SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = %(schema)s::text ORDER BY 1"""
RELATIONS_IN_SCHEMAS = ("relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname = ANY(%(schemas)s)) "
       "AND relkind IN ('r', 'p', 'v', 'm')")
FIRST_UNREADABLE = (f"SELECT min(oid::regclass::text) FROM pg_class WHERE {RELATIONS_IN_SCHEMAS} "
              "AND NOT has_table_privilege(%(role)s, oid, 'SELECT')")
EXCESS_PRIVILEGES = f"""
SELECT 'making roles, or copying the whole server' FROM pg_roles
WHERE rolname = %(role)s AND (rolcreaterole OR rolreplication)
UNION ALL SELECT 'new schemas' WHERE has_database_privilege(%(role)s, current_database(), 'CREATE')
UNION ALL SELECT 'the schema ' || nspname FROM pg_namespace
WHERE nspname = 'mirror'
  AND (has_schema_privilege(%(role)s, oid, 'USAGE') OR has_schema_privilege(%(role)s, oid, 'CREATE'))
UNION ALL SELECT 'new tables in ' || nspname FROM pg_namespace
WHERE nspname = ANY(%(schemas)s) AND has_schema_privilege(%(role)s, oid, 'CREATE')
UNION ALL SELECT 'writing ' || oid::regclass FROM pg_class
WHERE {RELATIONS_IN_SCHEMAS} AND has_table_privilege(%(role)s, oid, 'INSERT, UPDATE, DELETE, TRUNCATE')"""
"""Privileges that the role would have beyond reading the schemas, one per row, as text."""
SCHEMAS_WITH_CREATE = ("SELECT nspname FROM pg_namespace "
              "WHERE nspname !~ '^pg_temp_' AND has_schema_privilege(%s, oid, 'CREATE')")


READ_TEMPORARY = """
SELECT has_database_privilege('public', d.oid, 'TEMPORARY') AS is_public,
       pg_has_role(current_user, d.datdba, 'USAGE') AS is_ours
FROM pg_database d WHERE d.datname = current_database()"""
TEMPORARY_KEEPERS = """
SELECT r.rolname::text FROM pg_roles r
WHERE r.rolname <> %s AND NOT r.rolsuper AND has_database_privilege(r.oid, current_database(), 'TEMPORARY')
  AND (r.rolname IN (current_user, session_user) OR EXISTS (
    SELECT FROM pg_shdepend d
    WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid AND d.deptype = 'o'
      AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())))
ORDER BY 1"""
"""The mirror's own roles, and those that own something in this database: they keep what PUBLIC loses."""


SEARCH_PATHS = """
SELECT split_part(setting, '=', 2) FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole,
       unnest(s.setconfig) setting
WHERE r.rolname = %s AND setting LIKE 'search\\_path=%%'
  AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))"""
OUR_SEARCH_PATH = re.compile(r'("?)(\w+)_bi\1, ("?)\2\3|"?\w+"?')
"""The search_path of a role that reads one account, or the views over all of them."""


class AdministratorRequiredError(SyncRefusedError):
    """Our own role lacks the privileges; `sql` is what a database administrator can run instead."""

    def __init__(self, message: str, sql: str) -> None:
        super().__init__(message)
        self.sql = sql


@dataclass
class GrantResult:
    """Result of `grant_read_access`. `url` contains the password only if it was generated here."""

    role: str
    created: bool
    url: str
    schemas: list[str]
    notes: list[str] = field(default_factory=list)
    hidden: str = ""
    """Which rows row security hides from the role, with the cure; empty if none."""


def generate_password() -> str:
    return secrets.token_urlsafe(24)


def role_name_problem(role: str) -> str:
    """Why `role` is not allowed as the name of a role; "" if it is allowed."""
    if not role or len(role.encode()) > MAX_NAME_BYTES or not role.isprintable():
        return f"{role!r} is no name of a role: take 1 to {MAX_NAME_BYTES} bytes that can be printed"
    if role.startswith("pg_") or role in ("public", "none"):
        return f"Postgres keeps {role!r} for itself: choose another name with --role"
    return ""


def grant_read_access(connection: Connection, schema: str, role: str, password: str | None,
                      is_generated: bool) -> GrantResult:
    """Creates or updates the role. `password` None keeps the present password. Raises SyncRefusedError, or
    AdministratorRequiredError with the SQL."""
    schemas = existing_schemas(connection, schema)
    if schema not in schemas:
        cure = "it is created with the second account" if schema == ALL_ACCOUNTS_SCHEMA \
            else "run `amocrm-mirror migrate`"
        raise SyncRefusedError(f"there is no schema {schema!r} yet: {cure}, then run this again")
    existing = connection.execute(SELECT_ROLE, [role]).fetchone()
    if existing and (existing[0] or existing[2]):
        raise SyncRefusedError(
            f"{role!r} is {'a superuser' if existing[0] else 'the role of the mirror itself'}, "
            "which cannot be "
            "made to read only. Nothing was changed; choose another name with --role")
    can_login = existing[1] if existing else None
    try:
        with connection.transaction():
            for statement in (*grant_statements(connection, schemas, role, can_login),
                              *temporary_statements(connection, role)):
                connection.execute(statement)
            _set_search_path(connection, schemas, role)
            _set_password(connection, role, password)
            _verify_privileges(connection, role, schemas)
    except psycopg.errors.InsufficientPrivilege as reason:
        raise AdministratorRequiredError(
            f"Postgres refused: {reason.diag.message_primary or reason}. Nothing was changed. Have an "
            f"administrator of the database run what is printed above, then set the password: in psql, "
            f"\\password {role}", _sql_script(connection, schemas, role, can_login)) from None
    hidden = _hidden_note(connection, role, schemas)
    return GrantResult(role, existing is None,
                       connection_url(connection, role, password if is_generated else None), schemas,
                       _notes(connection, schema, role, schemas), hidden)


def grant_statements(connection: Connection, schemas: list[str], role: str,
               can_login: bool | None) -> Iterator[Composed]:
    """Statements that let the role read these schemas and no other schema of the mirror. They may be run
    again. `can_login` is None if the role does not exist yet."""
    grantee, database = Identifier(role), Identifier(connection.info.dbname)
    if not can_login:
        yield SQL("{} ROLE {} LOGIN").format(SQL("CREATE" if can_login is None else "ALTER"), grantee)
    yield SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, grantee)
    if can_login is not None:
        for granted_schema in [*schemas, MIRROR_SCHEMA]:
            yield SQL("REVOKE ALL ON SCHEMA {} FROM {}").format(Identifier(granted_schema), grantee)
            yield SQL("REVOKE ALL ON ALL TABLES IN SCHEMA {} FROM {}").format(
                Identifier(granted_schema), grantee)
    for granted_schema in schemas:
        yield SQL("GRANT USAGE ON SCHEMA {} TO {}").format(Identifier(granted_schema), grantee)
        yield SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(Identifier(granted_schema), grantee)
        for owner, in connection.execute(TABLE_OWNERS, {"schema": granted_schema}).fetchall():
            yield SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} GRANT SELECT ON TABLES TO {}"
                      ).format(Identifier(owner), Identifier(granted_schema), grantee)


def temporary_statements(connection: Connection, role: str, as_owner: bool = False) -> Iterator[Composed]:
    """Statements that keep the role from creating temporary tables, which every role may by default. None if
    that is so already, or if the database is not ours (`as_owner`: its owner will run them)."""
    database, grantee = Identifier(connection.info.dbname), Identifier(role)
    row = connection.execute(READ_TEMPORARY).fetchone()
    if row and row[0] and (row[1] or as_owner):
        for keeper, in connection.execute(TEMPORARY_KEEPERS, [role]).fetchall():
            yield SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(database, Identifier(keeper))
        yield SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC, {}").format(database, grantee)


def search_path_statement(connection: Connection, schemas: list[str], role: str) -> Composed:
    """The statement after which a name without a schema means, for the role, a view for people or else a
    table."""
    return SQL("ALTER ROLE {} IN DATABASE {} SET search_path = {}").format(
        Identifier(role), Identifier(connection.info.dbname),
        SQL(", ").join(map(Identifier, reversed(schemas))))


def _set_search_path(connection: Connection, schemas: list[str], role: str) -> None:
    """Sets the role's search_path, unless it was set by hand. Where our own role may not set it, it stays as
    it is: the role reads all the same."""
    found = connection.execute(SEARCH_PATHS, [role]).fetchall()
    if all(OUR_SEARCH_PATH.fullmatch(path) for path, in found):
        with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(search_path_statement(connection, schemas, role))


def connection_url(connection: Connection, role: str, password: str | None) -> str:
    """The URL with which a client reaches the server of this connection as `role`. `password` None leaves the
    password out."""
    info, who = connection.info, quote(role, safe="")
    user = f"{who}:{quote(password, safe='')}" if password else who
    options = {"sslmode": info.get_parameters()["sslmode"]} if "sslmode" in info.get_parameters() else {}
    if info.host.startswith("/"):
        return f"postgresql://{user}@/{quote(info.dbname, safe='')}?" \
            + urlencode({"host": info.host, "port": info.port} | options)
    host = f"[{info.host}]" if ":" in info.host else info.host
    return f"postgresql://{user}@{host}:{info.port}/{quote(info.dbname, safe='')}" \
        + ("?" + urlencode(options) if options else "")


def _set_password(connection: Connection, role: str, password: str | None) -> None:
    if password is not None:
        verifier = connection.pgconn.encrypt_password(
            password.encode(), role.encode(), b"scram-sha-256").decode()
        connection.execute(SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(role), Literal(verifier)))


def _verify_privileges(connection: Connection, role: str, schemas: list[str]) -> None:
    """Raises SyncRefusedError if the role would have privileges beyond reading. They come from another role
    or from PUBLIC, and we must not revoke those. Raises psycopg's InsufficientPrivilege if a table is still
    unreadable."""
    parameters = {"role": role, "schemas": schemas}
    excess = [row[0] for row in connection.execute(EXCESS_PRIVILEGES.encode(), parameters).fetchall()]
    if excess:
        raise SyncRefusedError(
            f"{role!r} would still have rights that it should not have: "
            f"{', '.join(excess[:5])}{' …' if excess[5:] else ''}. It has them "
            "from a role that it is a member of, from PUBLIC, or as an owner. "
            "Nothing was changed; revoke them, or choose another name with --role")
    unreadable = connection.execute(FIRST_UNREADABLE.encode(), parameters).fetchone()
    if unreadable and unreadable[0]:
        raise psycopg.errors.InsufficientPrivilege(f"{unreadable[0]} is not ours to grant")


def _sql_script(connection: Connection, schemas: list[str], role: str, can_login: bool | None) -> str:
    return "".join(f"{statement.as_string(connection)};\n"
                   for statement in (*grant_statements(connection, schemas, role, can_login),
                                     *temporary_statements(connection, role, as_owner=True),
                                     search_path_statement(connection, schemas, role)))


def _hidden_note(connection: Connection, role: str, schemas: list[str]) -> str:
    found = hidden_tables(connection, schemas)
    bypasses = connection.execute("SELECT FROM pg_roles WHERE rolname = %s AND (rolsuper OR rolbypassrls)",
                                  [role]).fetchone()
    if not found.names or bypasses is not None:
        return ""
    return (f"row security is on for {shortened(found.names)}: {role} sees no rows there but those that a "
            f"policy shows. {found.cure}; or as a superuser: ALTER ROLE {quoted(role)} BYPASSRLS")


def _notes(connection: Connection, schema: str, role: str, schemas: list[str]) -> list[str]:
    """Remarks for the operator: no BI schema yet; schemas in which the role may create tables; temporary
    ones."""
    elsewhere = [row[0] for row in connection.execute(SCHEMAS_WITH_CREATE, [role]).fetchall()]
    has_bi = bi_schema(schema) in schemas or schema == ALL_ACCOUNTS_SCHEMA
    notes = [] if has_bi else [
        f"The schema {bi_schema(schema)} does not exist yet: run this again when it does."]
    temporary = connection.execute("SELECT FROM pg_database WHERE datname = current_database() "
                                   "AND has_database_privilege(%s, oid, 'TEMPORARY')", [role]).fetchone()
    notes += [] if temporary is None else [
        "It may create temporary tables, as every role may: as the owner of the database, REVOKE "
        f"TEMPORARY ON DATABASE {quoted(connection.info.dbname)} FROM PUBLIC prevents that (GRANT it to "
        "roles that need it)."]
    return notes + ([
        f"It may create tables in {', '.join(elsewhere)}, as every role may: "
        "REVOKE CREATE ON SCHEMA … FROM PUBLIC prevents that."] if elsewhere else [])
