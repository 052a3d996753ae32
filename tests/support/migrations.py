"""Migrations written by a test, run by the real env.py."""

from pathlib import Path

import psycopg

REPOSITORY = Path(__file__).resolve().parents[2]
INI = """
[DEFAULT]
script_location = {repository}/alembic
path_separator = os
file_template = %%(year)d%%(month).2d%%(day).2d_%%(slug)s
[account]
version_locations = {versions}/account
[mirror]
version_locations = {versions}/mirror
"""
MIGRATION = """
from alembic import op
revision = "{revision}"
down_revision = {previous!r}
def upgrade():
{up}
def downgrade():
{down}
"""


class MigrationFolder:
    """The migrations of a test: files in `folder`, one subfolder per target (account, mirror)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.previous: dict[str, str | None] = {"account": None, "mirror": None}
        for target in self.previous:
            (folder / target).mkdir()

    def add(self, target: str, revision: str, up: str, down: str = "pass") -> None:
        body = MIGRATION.format(
            revision=revision,
            previous=self.previous[target],
            up="    " + up.replace("\n", "\n    "),
            down="    " + down,
        )
        (self.folder / target / f"{revision}.py").write_text(body, encoding="utf-8")
        self.previous[target] = revision

    def remove(self, target: str, revision: str) -> None:
        (self.folder / target / f"{revision}.py").unlink()


def write_two_migrations(folder: Path) -> MigrationFolder:
    """Writes an alembic.ini and one migration for each target."""
    (folder / "alembic.ini").write_text(INI.format(repository=REPOSITORY, versions=folder), encoding="utf-8")
    made = MigrationFolder(folder)
    made.add("mirror", "m1", 'op.execute("CREATE TABLE tokens ()")')
    made.add(
        "account",
        "a1",
        'op.execute("CREATE TABLE leads (id bigint)")',
        'op.execute("DROP TABLE leads")',
    )
    return made


def tables(connection: psycopg.Connection) -> set[str]:
    found = connection.execute("SELECT schemaname || '.' || tablename FROM pg_tables "
                               "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')")
    return {str(row[0]) for row in found}


ALL_TABLES = {
    "amocrm.leads",
    "amocrm.alembic_version",
    "mirror.tokens",
    "mirror.alembic_version",
}
