"""alerts

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

Revision: 9b3e61d0c784
Revises: e5b80c2f4a17
Date: 2026-11-29 15:30:00.000000+00:00
"""

import sqlalchemy as sa
from alembic import op

revision: str = '9b3e61d0c784'
down_revision: str | None = 'e5b80c2f4a17'
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        'alerts',
        sa.Column('account', sa.Text(), nullable=False, comment='Account'),
        sa.Column('problem', sa.Text(), nullable=False,
                  comment='access, block, failed, stale, quarantine or webhook'),
        sa.Column('channel', sa.Text(), nullable=False, comment='e-mail, Slack, Telegram or the webhook'),
        sa.Column('alerted_at', sa.TIMESTAMP(timezone=True), server_default=sa.text('now()'), nullable=False,
                  comment='When the channel took the message'),
        sa.ForeignKeyConstraint(['account'], ['accounts.name'], name=op.f('fk_alerts_account'),
                                onupdate='CASCADE', ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('account', 'problem', 'channel', name=op.f('pk_alerts')),
        comment='Problems that people were alerted to and whose end they have not been told: one row per '
                'account, problem and channel')


def downgrade() -> None:
    op.drop_table('alerts')
