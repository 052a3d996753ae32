"""Roles and databases with the properties that people's servers have."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier


@dataclass(frozen=True)
class OrdinaryRole:
    """A role that is no superuser, and the connection of the administrator to its database."""

    name: str
    conninfo: str
    administrator: psycopg.Connection[Any]

    def administer(self, *statements: LiteralString) -> None:
        """Runs statements as the administrator; {role} and {database} are the names."""
        for statement in statements:
            self.administrator.execute(SQL(statement).format(
                role=Identifier(self.name), database=Identifier(self.administrator.info.dbname)))


@contextmanager
def ordinary_role(database: str, *properties: LiteralString) -> Iterator[OrdinaryRole]:
    """Makes a role that may do in the database only what every role may, and runs `properties` for it."""
    name, password = f"r_{uuid.uuid4().hex[:10]}", str(conninfo_to_dict(database)["password"])
    with psycopg.connect(database, autocommit=True) as administrator:
        made = OrdinaryRole(name, make_conninfo(database, user=name, password=password), administrator)
        administrator.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(Identifier(name), password))
        try:
            made.administer(*properties)
            yield made
        finally:
            # The tables stay with the administrator: the caller drops the database
            made.administer("REASSIGN OWNED BY {role} TO CURRENT_USER", "DROP OWNED BY {role}",
                            "DROP ROLE {role}")
