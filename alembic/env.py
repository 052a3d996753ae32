"""Runs Alembic inside exactly one schema: an account's, or `mirror`.

`pipelines/migrate.py` passes `connection` and `schema` in `config.attributes`; the `alembic` command takes
them from the environment. In both cases one migrator runs at a time in a schema, each migration is one
transaction, and waiting for a lock and running a statement have a timeout: a short one, because a reader of
the table waits behind the migration that waits.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from alembic.util import CommandError
from sqlalchemy import Connection, MetaData
from sqlalchemy.exc import DBAPIError

from alembic import context
from models.base import AccountBase, MirrorBase
from pipelines.config.settings import load_settings, validate_schema_name
from pipelines.postgres.connections import SESSION_SETTINGS, open_engine
from pipelines.postgres.embedded.server import EmbeddedPostgres
from pipelines.postgres.locks import RELEASE_MIGRATION_LOCKS, TAKE_MIGRATION_LOCKS

SESSION = """
SET search_path TO "{schema}";
SET lock_timeout TO '5s';
SET statement_timeout TO '30min';
"""
RESET = "; ".join(f"SET {name} TO {SESSION_SETTINGS[name]}"
                  for name in ("search_path", "lock_timeout", "statement_timeout"))
SCHEMA_EXISTS = "SELECT count(*) FROM pg_namespace WHERE nspname = %(schema)s"

config = context.config
target = config.config_ini_section


def target_metadata() -> MetaData:
    given = config.attributes.get("target_metadata")
    if given is not None:
        return given  # type: ignore[no-any-return]
    return (MirrorBase if target == "mirror" else AccountBase).metadata


@contextmanager
def connected() -> Iterator[tuple[Connection, str]]:
    given = config.attributes.get("connection")
    if given is not None:
        yield given, config.attributes["schema"]
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = load_settings()
    url = settings.database_url
    conninfo = url.get_secret_value() if url else EmbeddedPostgres(settings.mirror_home).start()
    with open_engine(conninfo).connect() as connection:
        yield connection, "mirror" if target == "mirror" else settings.amocrm_schema


@contextmanager
def inside(connection: Connection, schema: str) -> Iterator[None]:
    """Makes `schema` the only visible schema, for Postgres and for autogenerate, under its migration lock.

    Uses session settings, not SET LOCAL: a migration may leave its transaction (`autocommit_block`) and must
    not run in another schema then.
    """
    dialect = connection.dialect
    usual = dialect.default_schema_name
    connection.exec_driver_sql("SET lock_timeout TO '10min'")
    connection.exec_driver_sql(TAKE_MIGRATION_LOCKS.format(schema=schema))
    try:
        # IF NOT EXISTS asks for the right to make a schema even where it is there
        if not connection.exec_driver_sql(SCHEMA_EXISTS, {"schema": schema}).scalar():
            connection.exec_driver_sql(f'CREATE SCHEMA "{schema}"')
        connection.exec_driver_sql(SESSION.format(schema=schema))
        connection.commit()
        dialect.default_schema_name = schema
        yield
    finally:
        dialect.default_schema_name = usual
        with suppress(DBAPIError):  # a lost connection has released lock and settings as well
            connection.rollback()
            connection.exec_driver_sql(RESET)
            connection.exec_driver_sql(RELEASE_MIGRATION_LOCKS.format(schema=schema))
            connection.commit()


def include_object(_: object, name: str | None, kind: str, *__: object) -> bool:
    """False for alembic_version, for NOT ENFORCED references, which `bi/base_views.py` manages, and for the
    stored steps of marts (`bi/stored.py`)."""
    unenforced = kind == "foreign_key_constraint" and (name or "").startswith("ref_")
    is_ours = kind == "table" and (name == "alembic_version" or (name or "").startswith("stored_"))
    return not (unenforced or is_ours)


def run() -> None:
    if context.is_offline_mode():
        raise CommandError("--sql is not offered: what a migration does depends on the data.")
    if target not in ("account", "mirror"):
        raise CommandError("Say which target: alembic -n account … or alembic -n mirror …")
    with connected() as (connection, schema):
        if target == "account":
            validate_schema_name(schema)
        with inside(connection, schema):
            context.configure(
                connection=connection,
                target_metadata=target_metadata(),
                transaction_per_migration=True,
                compare_type=True,
                compare_server_default=True,
                include_object=include_object,
            )
            with context.begin_transaction():
                context.run_migrations()


run()
