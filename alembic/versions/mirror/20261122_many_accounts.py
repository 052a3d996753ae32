"""many accounts

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

Revision: a1c7d20e5b94
Revises: f0a469fbf516
Date: 2026-11-22 22:10:12.316022+00:00
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = 'a1c7d20e5b94'
down_revision: str | None = 'f0a469fbf516'
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column('accounts', sa.Column('configured_url', sa.Text(), nullable=True, comment='AMOCRM_BASE_URL that base_url came from; it may have moved since'))
    op.add_column('accounts', sa.Column('revoked_at', postgresql.TIMESTAMP(timezone=True), nullable=True, comment='When amoCRM last refused access, or told that it was taken away'))
    op.add_column('accounts', sa.Column('revoked_reason', sa.Text(), nullable=True, comment='How that is known'))
    op.add_column('accounts', sa.Column('paused_at', postgresql.TIMESTAMP(timezone=True), nullable=True, comment='Since when a person wants no syncs of it'))


def downgrade() -> None:
    op.drop_column('accounts', 'paused_at')
    op.drop_column('accounts', 'revoked_reason')
    op.drop_column('accounts', 'revoked_at')
    op.drop_column('accounts', 'configured_url')
