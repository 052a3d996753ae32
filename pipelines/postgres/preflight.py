"""Is this server, with this role, fit for the mirror? Asked before anything is written.

What a session can set for itself is set where connections are opened (`postgres/connections.py`). What it
cannot is an obstacle: said by `doctor`, and refused by every command that writes, with the GRANT or the
setting that removes it. Rights are asked for only when something has to be made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from models.base import AccountBase, MirrorBase
from pipelines.errors import DatabaseUnfitError

Connection = psycopg.Connection[Any]
CONNECTIONS_PER_SYNC = 4
"""Connections to Postgres of one sync, besides one per list being read: its lock, its rate limiters, its run
log."""
NEEDED_CONNECTIONS = CONNECTIONS_PER_SYNC + 1
"""Connections of a sync that reads one list at a time."""
READ_FACTS = """
SELECT pg_is_in_recovery() AS is_standby,
       (SELECT source FROM pg_settings
        WHERE name = 'default_transaction_read_only' AND setting = 'on') AS read_only_by,
       pg_encoding_to_char(d.encoding) AS encoding, d.datname::text AS database, r.rolname::text AS role,
       has_database_privilege(d.oid, 'TEMPORARY') AS may_stage,
       has_database_privilege(d.oid, 'CREATE') AS may_create, s.rolname::text AS login,
       CASE WHEN s.rolsuper OR s.rolconnlimit < 0 THEN NULL ELSE s.rolconnlimit END AS role_limit,
       CASE WHEN s.rolsuper OR d.datconnlimit < 0 THEN NULL ELSE d.datconnlimit END AS database_limit,
       current_setting('max_connections')::int - CASE WHEN s.rolsuper THEN 0 ELSE
           current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true)::int, 0) END AS server_limit,
       (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = s.oid)::int AS role_used,
       (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid)::int AS database_used,
       (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid IS NOT NULL)::int AS server_used
FROM pg_roles r, pg_roles s, pg_database d
WHERE r.rolname = current_user AND s.rolname = session_user AND d.datname = current_database()"""
"""The limits are those of the role that logged in, the rights those of the role that it has become."""
DISK_NOTE = "a hosting company may have set it because the disk is full: make room first"
READ_ONLY_CURE = f"In postgresql.conf remove default_transaction_read_only; {DISK_NOTE}"
READ_ONLY_CURES = {
    "user": "ALTER ROLE {role} RESET default_transaction_read_only",
    "database": f"ALTER DATABASE {{database}} RESET default_transaction_read_only; {DISK_NOTE}",
    "database user": "ALTER ROLE {role} IN DATABASE {database} RESET default_transaction_read_only",
    "client": "Remove it from PGOPTIONS and from the options of DATABASE_URL"}
"""How to end it, by who has set it (pg_settings.source)."""
READ_SCHEMAS = """
SELECT wanted.name, n.oid IS NOT NULL AS exists,
       n.oid IS NOT NULL AND has_schema_privilege(n.oid, 'USAGE') AS may_use,
       n.oid IS NOT NULL AND has_schema_privilege(n.oid, 'CREATE') AS may_create
FROM unnest(%s::text[]) AS wanted (name) LEFT JOIN pg_namespace n ON n.nspname = wanted.name"""
OWN_TABLES = sorted({table.name for base in (AccountBase, MirrorBase)
                     for table in base.metadata.tables.values()})
ROW_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
READ_TABLES = """
SELECT n.nspname::text AS schema, c.relname::text AS name, pg_get_userbyid(c.relowner)::text AS owner,
       pg_has_role(c.relowner, 'USAGE') AS is_ours,
       (SELECT bool_and(has_table_privilege(c.oid, wanted)) FROM unnest(%s::text[]) wanted) AS may_use
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY(%s) AND c.relname = ANY(%s) AND c.relkind IN ('r', 'p') ORDER BY 1, 2"""
"""The mirror's own tables: people may keep others next to them."""
HIDDEN_TABLES = """
SELECT c.oid::regclass::text AS name, pg_get_userbyid(c.relowner)::text AS owner,
       row_security_active(c.oid) AS from_us
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY(%s) AND c.relkind IN ('r', 'p') AND c.relrowsecurity ORDER BY 1"""


@dataclass(frozen=True)
class Obstacle:
    """What is in the way, and the statement or setting that removes it."""

    text: str
    cure: str


@dataclass(frozen=True)
class ConnectionBudget:
    """Connections that the server allows this role. `limit`: in all; `free`: not taken now; `setting`: the
    statement that raises the limit."""

    limit: int
    free: int
    setting: str


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def read_facts(connection: Connection) -> dict[str, Any]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(READ_FACTS.encode()).fetchone() or {}


def obstacles(connection: Connection) -> list[Obstacle]:
    """Returns what keeps the mirror from writing into this database."""
    facts = read_facts(connection)
    return [*_server_obstacles(facts), *_connection_obstacles(facts)]


def _server_obstacles(facts: dict[str, Any]) -> Iterator[Obstacle]:
    role, database = quoted(facts["role"]), quoted(facts["database"])
    if facts["is_standby"]:
        yield Obstacle("the server is a standby, which is read only",
                       "In DATABASE_URL use the address of the primary server")
    elif facts["read_only_by"]:
        yield Obstacle("default_transaction_read_only is on, so that nothing can be written",
                       READ_ONLY_CURES.get(facts["read_only_by"], READ_ONLY_CURE).format(
                           role=role, database=database))
    if facts["encoding"] != "UTF8":
        yield Obstacle(
            f"the database {facts['database']} is in {facts['encoding']}, which cannot hold every letter",
            "CREATE DATABASE amocrm ENCODING 'UTF8' TEMPLATE template0, and name it in DATABASE_URL")
    if not facts["may_stage"]:
        yield Obstacle(
            f"{facts['role']} may not make temporary tables in {facts['database']}, through which rows are "
            "loaded", f"As the owner of the database: GRANT TEMPORARY ON DATABASE {database} TO {role}")


def _connection_obstacles(facts: dict[str, Any]) -> Iterator[Obstacle]:
    budget = _budget(facts)
    if budget.limit < NEEDED_CONNECTIONS:
        yield Obstacle(f"{facts['role']} may open {budget.limit} connections, and a sync needs at least "
                       f"{NEEDED_CONNECTIONS}, with AMOCRM_CONCURRENCY=1 too",
                       f"As an administrator: {budget.setting}")


def connection_budget(connection: Connection) -> ConnectionBudget:
    """Returns how many connections this role may open."""
    return _budget(read_facts(connection))


def _budget(facts: dict[str, Any]) -> ConnectionBudget:
    limits = [(limit, used, setting) for limit, used, setting in (
        (facts["role_limit"], facts["role_used"], f"ALTER ROLE {quoted(facts['login'])} CONNECTION LIMIT 20"),
        (facts["database_limit"], facts["database_used"],
         f"ALTER DATABASE {quoted(facts['database'])} CONNECTION LIMIT 20"),
        (facts["server_limit"], facts["server_used"], "raise max_connections in postgresql.conf"))
        if limit is not None]
    limit, _, setting = min(limits)
    return ConnectionBudget(limit, min(limit - used for limit, used, _ in limits), setting)


def refuse_unfit(connection: Connection) -> None:
    """Raises DatabaseUnfitError, with every obstacle and its cure, if the mirror cannot write here."""
    found = obstacles(connection)
    if found:
        raise DatabaseUnfitError("nothing was written, because " + "; ".join(
            f"{each.text}. {each.cure}" for each in found))


def missing_rights(connection: Connection, to_make: Sequence[str], to_use: Sequence[str]) -> list[Obstacle]:
    """Returns the rights that this role lacks: to make the schemas `to_make`, or tables in those of them that
    are there and to change their tables; and to use the schemas `to_use` that are there, with their
    tables."""
    facts = read_facts(connection)
    role, database = quoted(facts["role"]), quoted(facts["database"])
    found = []
    rows = connection.execute(READ_SCHEMAS, [list(dict.fromkeys([*to_make, *to_use]))]).fetchall()
    absent = [name for name, exists, *_ in rows if name in to_make and not exists]
    if absent and not facts["may_create"]:
        found.append(Obstacle(
            f"{facts['role']} may not make the schemas {', '.join(absent)} in {facts['database']}",
            f"As the owner of the database: GRANT CREATE ON DATABASE {database} TO {role}; or "
            + "; ".join(f"CREATE SCHEMA {quoted(name)} AUTHORIZATION {role}" for name in absent)))
    for name, exists, may_use, may_create in rows:
        wanted = [right for right, has in (("USAGE", may_use), ("CREATE", may_create or name not in to_make))
                  if exists and not has]
        if wanted:
            what = "make tables in" if "CREATE" in wanted else "use"
            found.append(Obstacle(
                f"{facts['role']} may not {what} the schema {name}",
                f"As the owner of the schema: GRANT {', '.join(wanted)} ON SCHEMA {quoted(name)} TO {role}"))
    return [*found, *_table_obstacles(connection, facts["role"], to_make, to_use)]


def _table_obstacles(connection: Connection, role: str, to_make: Sequence[str],
                     to_use: Sequence[str]) -> Iterator[Obstacle]:
    """Yields what keeps the role from changing its tables in the schemas `to_make`, and from reading and
    writing them in the schemas `to_use`: another role owns them."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(READ_TABLES, [list(ROW_RIGHTS), list({*to_make, *to_use}),
                                            OWN_TABLES]).fetchall()
    for schema, owner in dict.fromkeys((row["schema"], row["owner"]) for row in rows):
        own = [row for row in rows if (row["schema"], row["owner"]) == (schema, owner)]
        unowned = [row["name"] for row in own if not row["is_ours"]]
        unusable = [row["name"] for row in own if not row["may_use"]]
        if schema in to_make and unowned:
            yield Obstacle(
                f"{role} may not change the tables of the schema {schema}, as this version has to: "
                f"{owner} owns {shortened(unowned)}",
                f"As an administrator: GRANT {quoted(owner)} TO {quoted(role)}; or let {owner} run "
                "`amocrm-mirror migrate`")
        elif unusable:
            yield Obstacle(
                f"{role} may not read and write in the schema {schema}: {owner} owns {shortened(unusable)}",
                f"As {owner}: GRANT {', '.join(ROW_RIGHTS)} ON ALL TABLES IN SCHEMA {quoted(schema)} TO "
                f"{quoted(role)}")


def shortened(names: Sequence[str]) -> str:
    """Returns the names, or the first three and how many there are."""
    return ", ".join(names) if len(names) < 5 else f"{', '.join(names[:3])} and {len(names) - 3} more tables"


@dataclass(frozen=True)
class HiddenTables:
    """Tables on which row security is on: `from_us`, also for this role; else only for other roles."""

    names: list[str]
    from_us: list[str]
    cure: str


def hidden_tables(connection: Connection, schemas: Sequence[str]) -> HiddenTables:
    """Returns the tables of the schemas whose rows row security may hide."""
    rows = connection.execute(HIDDEN_TABLES, [list(schemas)]).fetchall()
    cure = "; ".join(f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY"
                     for name, *_ in rows[:3])
    return HiddenTables([name for name, *_ in rows], [name for name, _, ours in rows if ours],
                        f"As the owner: {cure}{' …' if rows[3:] else ''}")
