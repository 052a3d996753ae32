"""sync_number

Before you land this migration:
- It runs once for every account's schema (or once for `mirror`): name no schema, the
  search_path already holds exactly the right one.
- It runs while BI users read and syncs write. Adding a nullable column is instant;
  changing a type, SET NOT NULL or a CHECK reads or rewrites the table under an exclusive
  lock. Split such a change (NOT VALID, then VALIDATE). Waiting for a lock ends after
  30 s, a statement after 30 min: then nothing of this migration has happened.
- CREATE INDEX CONCURRENTLY needs `with op.get_context().autocommit_block():` and
  `IF NOT EXISTS`, because half of the migration may have happened.
- It must run on PostgreSQL 15 and later, without extensions or ICU collations.
- `upgrade` and `downgrade` are each other's inverse; a downgrade may lose data that a
  sync brings back, nothing else.
After it has landed it is never edited: write another one.

Revision: e5b80c2f4a17
Revises: 4d1f7a2c9e05
Date: 2026-11-29 13:30:00.000000+00:00
"""

import sqlalchemy as sa
from alembic import op

revision: str = 'e5b80c2f4a17'
down_revision: str | None = '4d1f7a2c9e05'
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column('accounts', sa.Column(
        'sync_number', sa.BigInteger(), server_default='0', nullable=False,
        comment='Number of its latest sync or verification: an earlier one that has lost its lock writes nothing more'))


def downgrade() -> None:
    op.drop_column('accounts', 'sync_number')
