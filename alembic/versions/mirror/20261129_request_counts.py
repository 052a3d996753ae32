"""request_counts

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

Revision: 7b3d90e4c1f5
Revises: 9b3e61d0c784
Date: 2026-11-29 15:40:00.000000+00:00
"""

import sqlalchemy as sa
from alembic import op

revision: str = '7b3d90e4c1f5'
down_revision: str | None = '9b3e61d0c784'
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column('rate_budgets', sa.Column(
        'requests', sa.BigInteger(), server_default='0', nullable=False,
        comment='Requests that took a slot here, of every process'))
    op.add_column('rate_budgets', sa.Column(
        'throttled', sa.BigInteger(), server_default='0', nullable=False,
        comment='Answers 429: too many requests'))


def downgrade() -> None:
    op.drop_column('rate_budgets', 'throttled')
    op.drop_column('rate_budgets', 'requests')
