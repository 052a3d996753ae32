"""unproven_tokens

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

Revision: 7c41d0a95be2
Revises: 1020f220aefc
Date: 2026-11-28 10:45:00.000000+00:00
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = '7c41d0a95be2'
down_revision: str | None = '1020f220aefc'
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table('unproven_tokens',
    sa.Column('seed', sa.Text(), nullable=False, comment='Fingerprint of the configured refresh token'),
    sa.Column('account', sa.Text(), nullable=False, comment='Account that it was first configured for'),
    sa.Column('client_id', sa.Text(), nullable=True, comment='Integration id'),
    sa.Column('redirect_uri', sa.Text(), nullable=True, comment='Redirect address of the integration'),
    sa.Column('client_secret', sa.Text(), nullable=True, comment='Integration secret, encrypted'),
    sa.Column('access_token', sa.Text(), nullable=True, comment='Access token, encrypted'),
    sa.Column('refresh_token', sa.Text(), nullable=True, comment='Refresh token, encrypted; it works once'),
    sa.Column('expires_at', postgresql.TIMESTAMP(timezone=True), nullable=True, comment='When the access token ends; null: unknown'),
    sa.Column('refreshed_at', postgresql.TIMESTAMP(timezone=True), nullable=True, comment='When the pair was last renewed'),
    sa.Column('dead_reason', sa.Text(), nullable=True, comment='Why amoCRM did not take it; null: it was not asked, or took it'),
    sa.Column('asked_at', postgresql.TIMESTAMP(timezone=True), server_default=sa.text('now()'), nullable=False, comment='When amoCRM was last asked'),
    sa.ForeignKeyConstraint(['account'], ['accounts.name'], name=op.f('fk_unproven_tokens_account'), onupdate='CASCADE', ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('seed', name=op.f('pk_unproven_tokens')),
    comment='Configured pairs, encrypted, that amoCRM has not yet said to be of the account that they were configured for'
    )
    op.create_index(op.f('ix_unproven_tokens_account'), 'unproven_tokens', ['account'], unique=False)
    op.add_column('tokens', sa.Column('spent_seeds', postgresql.ARRAY(sa.Text()), nullable=True,
                                      comment='Fingerprints of configured tokens that were used up here before'))


def downgrade() -> None:
    op.drop_column('tokens', 'spent_seeds')
    op.drop_index(op.f('ix_unproven_tokens_account'), table_name='unproven_tokens')
    op.drop_table('unproven_tokens')
