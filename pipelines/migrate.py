"""Bringing a database to this program's schema, or refusing with a reason.

Owns what may be migrated: which Postgres, which schema, whose tables. How a migration
runs (one schema, one migrator, one transaction each) is `alembic/env.py`'s.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from psycopg import Error
from sqlalchemy import Connection, create_engine, pool, text
from sqlalchemy.exc import DBAPIError

from alembic import command
from pipelines.bi import all_accounts, base_views, builder
from pipelines.bi.placeholders import stand_ins
from pipelines.bi.state import place
from pipelines.config.database_urls import sqlalchemy_url
from pipelines.config.settings import validate_schema_name

INI = Path(__file__).resolve().parent.parent / "alembic.ini"
MEMORY_SCHEMA = "mirror"
MINIMUM_VERSION = 150000
# Alembic's `op` and `context` are one per process; between processes env.py locks.
ONE_AT_A_TIME = threading.Lock()
KEPT = "migrations that had finished are kept, nothing is half done"
CURES = {
    "2BP01": f"Views of yours read what changes; {KEPT}. Drop them, migrate, and make them again.",
    "0A000": f"Views of yours read what changes; {KEPT}. Drop them, migrate, and make them again.",
    "55P03": f"Another program holds the tables; {KEPT}. Stop it and migrate again.",
    "57014": f"It took longer than allowed; {KEPT}. Migrate again in a quieter hour.",
    "42501": "Let the database's owner GRANT CREATE ON DATABASE to this user.",
}
IN_THE_WAY = ("2BP01", "0A000", "42804")
"""dependent_objects_still_exist; feature_not_supported, which is what a change of the type of a column that a view shows is answered with;
datatype_mismatch, that of one which a reference of ours joins"""
STRANGERS = text(
    "WITH found AS (SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f')"
    " AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema))"
    " SELECT count(*) FROM found WHERE NOT EXISTS (SELECT FROM found WHERE relname = 'alembic_version')"
)
"""In one look: between two, another migrator may make them."""


class MigrationRefused(Exception):  # noqa: N818 - an answer, not a mistake
    """Nothing was migrated further; the message says why, and the cure."""


@dataclass(frozen=True)
class MigrationReport:
    """The revision of each target ("mirror", "account"); None before the first."""

    before: dict[str, str | None]
    after: dict[str, str | None]
    views: list[builder.Built]
    """What became of the views for people. What is wrong with one is no failure of the migration."""

    @property
    def changed(self) -> bool:
        return self.before != self.after


def migrate(conninfo: str, schema: str) -> MigrationReport:
    with _connected(conninfo) as connection:
        schemas = _schemas(schema)
        before = {name: _checked(connection, name, schemas[name]) for name in schemas}
        heads = {name: ScriptDirectory.from_config(alembic_config(name, None, schemas[name])).get_current_head() for name in schemas}
        with psycopg.connect(conninfo, autocommit=True) as own:
            for name in schemas:
                _upgrade(own, name, alembic_config(name, connection, schemas[name]), schema)
            base_views.rebuild(own, schema)
            built = builder.rebuild(own, schema)
            all_accounts.quietly(own, anew=before["account"] not in (None, heads["account"]))
        after = {name: _revision(connection, schemas[name]) for name in schemas}
        return MigrationReport(before, after, built)


def _upgrade(own: psycopg.Connection[Any], name: str, config: Config, schema: str) -> None:
    """Our views stay, and so does what others have on them, unless a migration changes a column that one of them shows."""
    try:
        with ONE_AT_A_TIME:
            command.upgrade(config, "head")
    except DBAPIError as error:
        if name != "account" or not isinstance(error.orig, Error) or error.orig.sqlstate not in IN_THE_WAY:
            raise
        with _giving_way(own, schema), ONE_AT_A_TIME:
            command.upgrade(config, "head")


@contextmanager
def _giving_way(own: psycopg.Connection[Any], schema: str) -> Iterator[None]:
    """Our views rest on no table of the account for the moment: stand-ins keep their place, and those over all accounts do without this one."""
    try:
        all_accounts.refresh(own, anew=True, without=schema)
        with own.transaction():
            base_views.drop_references(own, schema)
        with stand_ins(own, [*((schema, name) for name in base_views.VIEWS), *((place(schema), name) for name in builder.ours(own, schema))]):
            yield
    except BaseException:
        all_accounts.quietly(own, anew=True)
        raise


def _drop_views(own: psycopg.Connection[Any], schema: str) -> None:
    try:
        with own.transaction():
            base_views.drop(own, schema)
            builder.drop(own, schema)
    except psycopg.errors.DependentObjectsStillExist as reason:
        raise MigrationRefused(f"The tables go, and with them the views of {schema} and {place(schema)}, on which others rest: "
                               f"{reason.diag.message_detail}. Nothing was changed. Drop these and try again") from reason


def downgrade(conninfo: str, schema: str, revision: str, target: str = "account") -> None:
    """`revision` as Alembic takes it: an id, "-1", or "base" (which drops everything). The views go, the next `migrate` brings them back."""
    with _connected(conninfo) as connection:
        place = _schemas(schema)[target]
        _checked(connection, target, place)
        if target == "account":
            with psycopg.connect(conninfo, autocommit=True) as own:
                _drop_views(own, schema)
                all_accounts.refresh(own, anew=True, without=schema)
        with ONE_AT_A_TIME:
            command.downgrade(alembic_config(target, connection, place), revision)


def pending(conninfo: str, schema: str) -> dict[str, list[str]]:
    """The revisions that `migrate` would apply to each target, the next one first."""
    with _connected(conninfo) as connection:
        return {name: _pending(name, _checked(connection, name, place)) for name, place in _schemas(schema).items()}


def alembic_config(target: str, connection: Connection | None, schema: str) -> Config:
    if not INI.exists():
        raise MigrationRefused("The migrations are not part of this installation: clone the repository and install it with pip install -e .")
    config = Config(INI, ini_section=target)
    config.attributes.update(connection=connection, schema=schema)
    return config


def _schemas(schema: str) -> dict[str, str]:
    try:
        return {"mirror": MEMORY_SCHEMA, "account": validate_schema_name(schema)}
    except ValueError as error:
        raise MigrationRefused(str(error)) from error


@contextmanager
def _connected(conninfo: str) -> Iterator[Connection]:
    engine = create_engine(sqlalchemy_url(conninfo), poolclass=pool.NullPool)
    try:
        with engine.connect() as connection:
            _refuse_old_postgres(connection)
            yield connection
    except (DBAPIError, Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        state = cause.sqlstate if isinstance(cause, Error) else None
        if state not in CURES:
            raise
        raise MigrationRefused(f"Postgres refused: {cause}. {CURES[state]}") from error


def _refuse_old_postgres(connection: Connection) -> None:
    version = int(connection.scalar(text("SHOW server_version_num")))
    if version < MINIMUM_VERSION:
        raise MigrationRefused(
            f"This is PostgreSQL {version // 10000}, and the mirror needs "
            f"{MINIMUM_VERSION // 10000} or later; nothing was changed. Upgrade the "
            "server, or leave DATABASE_URL out to use the embedded Postgres."
        )


def _checked(connection: Connection, target: str, schema: str) -> str | None:
    revision = _revision(connection, schema)
    if revision is None:
        _refuse_strangers(connection, schema)
    elif revision not in {script.revision for script in _scripts(target)}:
        raise MigrationRefused(
            f"Schema {schema} is at version {revision}, which this program does not "
            "know; nothing was changed. If it was written by a newer amocrm-mirror, "
            "update the program; if by another application, choose another "
            "AMOCRM_SCHEMA."
        )
    return revision


def _refuse_strangers(connection: Connection, schema: str) -> None:
    count = connection.scalar(STRANGERS, {"schema": schema})
    connection.rollback()
    if count:
        cure = "another database" if schema == MEMORY_SCHEMA else "another AMOCRM_SCHEMA"
        raise MigrationRefused(f"Schema {schema} already holds {count} tables that are not ours; they were left alone. Choose {cure}.")


def _revision(connection: Connection, schema: str) -> str | None:
    options = {"version_table_schema": schema}
    revision = MigrationContext.configure(connection, opts=options).get_current_revision()
    connection.rollback()  # Alembic takes an open transaction for the caller's own
    return revision


def _pending(target: str, revision: str | None) -> list[str]:
    newest_first = [script.revision for script in _scripts(target)]
    done = newest_first.index(revision) if revision else len(newest_first)
    return newest_first[:done][::-1]


def _scripts(target: str) -> list[Script]:
    config = alembic_config(target, None, "")
    return list(ScriptDirectory.from_config(config).walk_revisions())
