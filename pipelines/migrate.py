"""Migrates a database to this program's schema, or refuses with a reason.

Decides what may be migrated: which Postgres version, which schema, whose tables. How a migration runs (one
schema, one migrator at a time, one transaction each) is decided in `alembic/env.py`. Where there is nothing
to migrate, no lock is taken.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psycopg
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from psycopg import Error
from psycopg.sql import SQL, Identifier
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from alembic import command
from pipelines.accounts.registry import all_accounts as registered_accounts
from pipelines.bi import all_accounts, base_views, builder
from pipelines.bi.placeholders import PLACEHOLDER_MARK, placeholder_views
from pipelines.config.settings import validate_schema_name
from pipelines.errors import DatabaseUnfitError, MirrorError, SyncRefusedError
from pipelines.failed_migrations import reason_to_wait, remembering_failure
from pipelines.postgres.connections import open_connection, open_engine
from pipelines.postgres.preflight import ROW_RIGHTS, missing_rights, quoted, refuse_unfit
from pipelines.schema.names import bi_schema

HERE = Path(__file__).resolve().parent
PACKAGED_INI = HERE / "migrations" / "alembic.ini"
INI = PACKAGED_INI if PACKAGED_INI.exists() else HERE.parent / "alembic.ini"
"""Next to alembic/: in `pipelines/migrations` of an installed wheel (setup.py puts both there), or at the top
of a checkout."""
MIRROR_SCHEMA = "mirror"
MINIMUM_VERSION = 150000
ALEMBIC_LOCK = threading.Lock()  # Alembic's `op` and `context` are global to the process
LOCK_TRIES, LOCK_PAUSE_SECONDS = 3, 2.0
"""How often a migration is tried whose tables another session holds, and the pause in between."""
CURRENT = """
SELECT (SELECT count(*) FROM pg_class c WHERE c.relnamespace = to_regnamespace(%(quoted)s) AND c.relkind = 'v'
        AND c.relname = ANY(%(views)s)
        AND strpos(coalesce(obj_description(c.oid, 'pg_class'), ''), %(placeholder)s) = 0),
       obj_description(to_regclass(%(quoted)s || '.alembic_version'), 'pg_class'),
       obj_description(to_regclass('mirror.alembic_version'), 'pg_class')"""
log = logging.getLogger(__name__)
FINISHED_KEPT = "migrations that had finished are kept, nothing is half done"
CURES = {
    **dict.fromkeys(("2BP01", "0A000"), f"Views of yours read what changes; {FINISHED_KEPT}. Drop them, "
                    "migrate, and make them again."),
    "55P03": f"Another program holds the tables; {FINISHED_KEPT}. Stop it and migrate again.",
    "57014": f"It took longer than allowed; {FINISHED_KEPT}. Migrate again in a quieter hour.",
    "42501": f"Let the owner of what is named grant it, or make this user its owner; {FINISHED_KEPT}.",
}
LOCK_NOT_AVAILABLE = "55P03"
BLOCKED_BY_VIEWS = ("2BP01", "0A000", "42804")
"""SQLSTATEs of a migration that our views or references block: dependent_objects_still_exist;
feature_not_supported (changing the type of a column that a view uses); datatype_mismatch (changing the type
of a column that one of our references uses)."""
COUNT_FOREIGN_TABLES = text(
    "WITH found AS (SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f')"
    " AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema))"
    " SELECT count(*) FROM found WHERE NOT EXISTS (SELECT FROM found WHERE relname = 'alembic_version')"
)
"""Counts the relations of a schema that has no alembic_version. One statement: between two, another migrator
may create the tables."""
HIDDEN_FROM = text(
    "SELECT current_user::text FROM pg_class WHERE relname = 'alembic_version'"
    " AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema)"
    " AND NOT (has_schema_privilege(relnamespace, 'USAGE') AND has_table_privilege(oid, 'SELECT'))"
)
"""This role, if it may not read at which version a schema is."""


class MigrationError(MirrorError):
    """The migration stopped; finished migrations are kept. The message gives the reason and the cure."""


@dataclass(frozen=True)
class MigrationReport:
    """Revision of each target ("mirror", "account") before and after; None if there was none yet."""

    before: dict[str, str | None]
    after: dict[str, str | None]
    views: list[builder.ViewResult]
    """Results of the BI views. A view that failed does not make the migration fail."""

    @property
    def changed(self) -> bool:
        return self.before != self.after


def ensure_current(conninfo: str, schema: str, all_views: bool = True) -> None:
    """Migrates if there is anything to migrate; else takes no lock. For syncs. `all_views`: see `migrate`.
    Raises MigrationError, also if the migration failed a short while ago."""
    schemas = _target_schemas(schema)
    with open_connection(conninfo, autocommit=True) as connection:
        refuse_unfit(connection)
        is_current = are_current(connection, schema)
        row = connection.execute(CURRENT, {
            "quoted": f'"{schema}"', "views": list(base_views.BASE_VIEWS),
            "placeholder": PLACEHOLDER_MARK}).fetchone()
        assert row
    if not is_current or row[0] < len(base_views.BASE_VIEWS):
        for target, comment in (("account", row[1]), ("mirror", row[2])):
            if waits := reason_to_wait(schemas[target], comment, head(target)):
                raise MigrationError(waits)
        migrate(conninfo, schema, all_views)


def are_current(connection: psycopg.Connection[Any], schema: str) -> bool:
    """True if an account's tables, and ours, are this program's. Takes no lock."""
    return revisions(connection, schema) == heads()


def revisions(connection: psycopg.Connection[Any], schema: str) -> dict[str, str | None]:
    """Target → its revision; None: it has none. Takes no lock."""
    found: dict[str, str | None] = {}
    for target, target_schema in _target_schemas(schema).items():
        try:
            with connection.transaction():
                row = connection.execute(SQL("SELECT version_num FROM {}").format(
                    Identifier(target_schema, "alembic_version"))).fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            row = None
        found[target] = str(row[0]) if row else None
    return found


def heads() -> dict[str, str | None]:
    """Target → the revision of this program, as `head` returns it."""
    return {target: head(target) for target in ("mirror", "account")}


def head(target: str) -> str | None:
    """Returns the revision of the program as it is installed now: an update may have replaced the files of a
    process that runs."""
    folder = Path(alembic_config(target, None, "").get_main_option("version_locations") or "")
    return _head(target, INI, tuple(sorted(path.name for path in folder.glob("*.py"))))


@lru_cache(maxsize=8)
def _head(target: str, ini: Path, files: tuple[str, ...]) -> str | None:
    return ScriptDirectory.from_config(alembic_config(target, None, "")).get_current_head()


def migrate(conninfo: str, schema: str, all_views: bool = True) -> MigrationReport:
    """Migrates the schema `mirror` and an account's schema, then rebuilds the views; those over all accounts
    only with `all_views`. Raises MigrationError."""
    with _connect(conninfo) as connection:
        schemas = _target_schemas(schema)
        before = {name: _valid_revision(connection, name, schemas[name]) for name in schemas}
        behind = [name for name in schemas if before[name] != head(name)]
        with open_connection(conninfo, autocommit=True) as autocommit:
            refuse_unfit(autocommit)
            _refuse_missing_rights(autocommit, schemas, behind)
            for name in behind:
                with remembering_failure(autocommit, schemas[name], head(name)):
                    _upgrade(autocommit, name, alembic_config(name, connection, schemas[name]), schema)
            base_views.rebuild_base_views(autocommit, schema)
            built = builder.build_views(autocommit, schema)
            if all_views:
                all_accounts.refresh_or_log(autocommit, recheck="account" in behind
                                            and before["account"] is not None)
        after = {name: _current_revision(connection, schemas[name]) for name in schemas}
        return MigrationReport(before, after, built)


def _upgrade(autocommit: psycopg.Connection[Any], name: str, config: Config, schema: str) -> None:
    """Upgrades one target. The views stay in place, so grants and views of others on them are kept; only if a
    migration changes a column that one of them uses, it runs again with placeholders in their place. Of the
    other accounts' views, those that read the schema `mirror` show no rows until these accounts are migrated
    or synced."""
    try:
        _upgrade_when_free(config)
    except DBAPIError as error:
        if not isinstance(error.orig, Error) or error.orig.sqlstate not in BLOCKED_BY_VIEWS:
            raise
        placeholders = (_placeholders_in_place(autocommit, schema) if name == "account"
                        else placeholder_views(autocommit, _views_of_mirror_state(autocommit)))
        with placeholders:
            _upgrade_when_free(config)


def _upgrade_when_free(config: Config) -> None:
    """Upgrades one target; tries again, a few times, while another session holds its tables."""
    for tries_left in reversed(range(LOCK_TRIES)):
        try:
            with ALEMBIC_LOCK:
                command.upgrade(config, "head")
            return
        except DBAPIError as error:
            if not tries_left or getattr(error.orig, "sqlstate", "") != LOCK_NOT_AVAILABLE:
                raise
            log.info("another session holds the tables; trying again in %.0f s", LOCK_PAUSE_SECONDS)
        time.sleep(LOCK_PAUSE_SECONDS)


def _views_of_mirror_state(autocommit: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """(schema, name) of our views, in all accounts, that read the schema `mirror`."""
    reading = builder.views_of_mirror_state()
    return [(bi_schema(account.schema), name) for account in registered_accounts(autocommit)
            for name in builder.own_views(autocommit, account.schema) if name in reading]


@contextmanager
def _placeholders_in_place(autocommit: psycopg.Connection[Any], schema: str) -> Iterator[None]:
    """Frees the account's tables of all dependencies for the body: placeholders replace the account's views,
    the references are dropped, and the views over all accounts leave this account out."""
    try:
        all_accounts.refresh(autocommit, recheck=True, excluding=schema)
        with autocommit.transaction():
            base_views.drop_references(autocommit, schema)
        with placeholder_views(autocommit, [*((schema, name) for name in base_views.BASE_VIEWS),
                                            *((bi_schema(schema), name)
                                              for name in builder.own_views(autocommit, schema))]):
            yield
    except BaseException:
        all_accounts.refresh_or_log(autocommit, recheck=True)
        raise


def _drop_views_of_mirror_state(autocommit: psycopg.Connection[Any]) -> None:
    try:
        for schema, name in _views_of_mirror_state(autocommit):
            autocommit.execute(SQL("DROP VIEW {}").format(Identifier(schema, name)))
    except psycopg.errors.DependentObjectsStillExist as reason:
        raise MigrationError(
            f"The downgrade drops the views that read the schema {MIRROR_SCHEMA}, and other views depend on "
            f"them: {reason.diag.message_detail}. No table was changed. Drop these views and try again"
        ) from reason


def _drop_views(autocommit: psycopg.Connection[Any], schema: str) -> None:
    try:
        with autocommit.transaction():
            base_views.drop_base_views(autocommit, schema)
            builder.drop_views(autocommit, schema)
    except psycopg.errors.DependentObjectsStillExist as reason:
        raise MigrationError(
            f"The downgrade drops the views of {schema} and {bi_schema(schema)}, and other views depend on "
            f"them: {reason.diag.message_detail}. Nothing was changed. Drop these views and try again"
        ) from reason


def downgrade(conninfo: str, schema: str, revision: str, target: str = "account") -> None:
    """Downgrades one target. `revision` is an id, "-1", or "base" (which drops everything), as in Alembic.
    The account's views are dropped; the next `migrate` builds them again."""
    with _connect(conninfo) as connection:
        target_schema = _target_schemas(schema)[target]
        _valid_revision(connection, target, target_schema)
        with open_connection(conninfo, autocommit=True) as autocommit:
            if target == "account":
                _drop_views(autocommit, schema)
                all_accounts.refresh(autocommit, recheck=True, excluding=schema)
            else:
                _drop_views_of_mirror_state(autocommit)
        with ALEMBIC_LOCK:
            command.downgrade(alembic_config(target, connection, target_schema), revision)


def pending_revisions(conninfo: str, schema: str) -> dict[str, list[str]]:
    """Target → the revisions that `migrate` would apply, the next one first."""
    with _connect(conninfo) as connection:
        return {name: _pending_revisions(name, _valid_revision(connection, name, target_schema))
                for name, target_schema in _target_schemas(schema).items()}


def refuse_before_migrating(conninfo: str, schema: str) -> None:
    """Raises MigrationError or DatabaseUnfitError where `migrate` would, before it changes anything."""
    pending = pending_revisions(conninfo, schema)
    with open_connection(conninfo, autocommit=True) as autocommit:
        refuse_unfit(autocommit)
        _refuse_missing_rights(autocommit, _target_schemas(schema), list(filter(pending.get, pending)))


def require_tables(conninfo: str, schema: str) -> None:
    """Raises SyncRefusedError if the account's tables do not exist or are not up to date: for commands that
    create nothing."""
    pending = pending_revisions(conninfo, schema)
    if any(pending.values()):
        raise SyncRefusedError(f"the tables of {schema!r} do not exist or are not up to date: run "
                               "`amocrm-mirror migrate`, then this again")


def require_mirrored(conninfo: str, schema: str) -> None:
    """Raises SyncRefusedError if nothing was ever mirrored into the schema, and what `migrate` would."""
    refuse_before_migrating(conninfo, schema)
    with _connect(conninfo) as connection:
        if _valid_revision(connection, "account", _target_schemas(schema)["account"]) is None:
            raise SyncRefusedError(f"nothing is mirrored into {schema!r} yet: run `amocrm-mirror sync` first")


def alembic_config(target: str, connection: Connection | None, schema: str) -> Config:
    if not INI.exists():
        raise MigrationError(f"The migrations are missing from {HERE}: install amocrm-mirror again")
    config = Config(INI, ini_section=target)
    config.attributes.update(connection=connection, schema=schema)
    return config


def _target_schemas(schema: str) -> dict[str, str]:
    """Target → its schema. Raises MigrationError for an invalid schema name."""
    try:
        return {"mirror": MIRROR_SCHEMA, "account": validate_schema_name(schema)}
    except ValueError as error:
        raise MigrationError(str(error)) from error


@contextmanager
def _connect(conninfo: str) -> Iterator[Connection]:
    """A connection to a supported Postgres. Postgres' errors that have a known cure become MigrationError."""
    engine = open_engine(conninfo)
    try:
        with engine.connect() as connection:
            _refuse_old_postgres(connection)
            yield connection
    except (DBAPIError, Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        state = cause.sqlstate if isinstance(cause, Error) else None
        if state not in CURES:
            raise
        raise MigrationError(f"Postgres refused: {cause}. {CURES[state]}") from error


def _refuse_old_postgres(connection: Connection) -> None:
    version = int(connection.scalar(text("SHOW server_version_num")))
    if version < MINIMUM_VERSION:
        raise MigrationError(
            f"This is PostgreSQL {version // 10000}, and the mirror needs "
            f"{MINIMUM_VERSION // 10000} or later; nothing was changed. Upgrade the "
            "server, or leave DATABASE_URL out to use the embedded Postgres."
        )


def _refuse_missing_rights(connection: psycopg.Connection[Any], schemas: dict[str, str],
                           behind: list[str]) -> None:
    """Raises DatabaseUnfitError if this role may not make what is missing in the targets `behind`, or not use
    a schema. Before the first migration, so that nothing is half done."""
    found = missing_rights(connection, [schemas[name] for name in behind], list(schemas.values()))
    if found:
        raise DatabaseUnfitError("nothing was changed, because " + "; ".join(
            f"{each.text}. {each.cure}" for each in found))


def _valid_revision(connection: Connection, target: str, schema: str) -> str | None:
    """The schema's revision. Raises MigrationError if this program does not know it, or if the schema holds
    tables of another application."""
    revision = _current_revision(connection, schema)
    if revision is None:
        _refuse_foreign_tables(connection, schema)
    elif revision not in {script.revision for script in _scripts(target)}:
        raise MigrationError(
            f"Schema {schema} is at version {revision}, which this program does not know; nothing was "
            "changed. If it was written by a newer amocrm-mirror, update the program and restart what runs "
            "of it; if by another application, choose another AMOCRM_SCHEMA.")
    return revision


def _refuse_foreign_tables(connection: Connection, schema: str) -> None:
    count = connection.scalar(COUNT_FOREIGN_TABLES, {"schema": schema})
    connection.rollback()
    if count:
        cure = "another database" if schema == MIRROR_SCHEMA else "another AMOCRM_SCHEMA"
        raise MigrationError(
            f"Schema {schema} already holds {count} tables that are not ours; they were left "
            f"alone. Choose {cure}.")


def _current_revision(connection: Connection, schema: str) -> str | None:
    role = connection.scalar(HIDDEN_FROM, {"schema": schema})
    if role:
        raise DatabaseUnfitError(
            f"nothing was changed, because {role} may not read and write in the schema {schema}: another "
            f"role owns its tables. As that role: GRANT USAGE ON SCHEMA {quoted(schema)} TO {quoted(role)}; "
            f"GRANT {', '.join(ROW_RIGHTS)} ON ALL TABLES IN SCHEMA {quoted(schema)} TO {quoted(role)}")
    options = {"version_table_schema": schema}
    revision = MigrationContext.configure(connection, opts=options).get_current_revision()
    connection.rollback()  # Alembic takes an open transaction for the caller's own
    return revision


def _pending_revisions(target: str, revision: str | None) -> list[str]:
    newest_first = [script.revision for script in _scripts(target)]
    done = newest_first.index(revision) if revision else len(newest_first)
    return newest_first[:done][::-1]


def _scripts(target: str) -> list[Script]:
    return list(ScriptDirectory.from_config(alembic_config(target, None, "")).walk_revisions())
