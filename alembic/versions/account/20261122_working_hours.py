"""working_hours and holidays, which are the account's own to fill

Revision: 5b9e04d7c218
Revises: 8d2f6b1c04ae
Date: 2026-11-22 23:10:00
"""

import datetime

import sqlalchemy as sa
from alembic import op

revision: str = '5b9e04d7c218'
down_revision: str | None = '8d2f6b1c04ae'
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table('holidays',
    sa.Column('day', sa.Date(), nullable=False, comment="The day, in the account's time zone"),
    sa.Column('name', sa.Text(), nullable=True, comment='What it is'),
    sa.PrimaryKeyConstraint('day', name=op.f('pk_holidays')),
    comment='Days on which nobody works, whatever day of the week they are: yours to fill'
    )
    hours = op.create_table('working_hours',
    sa.Column('weekday', sa.Integer(), autoincrement=False, nullable=False, comment='1 Monday … 7 Sunday'),
    sa.Column('opens_at', sa.Time(), nullable=False, comment='From when'),
    sa.Column('closes_at', sa.Time(), nullable=False, comment='Until when'),
    sa.PrimaryKeyConstraint('weekday', name=op.f('pk_working_hours')),
    comment="When people work, in the account's time zone: yours to change. A day of the week without a row is a day off"
    )
    op.bulk_insert(hours, [{'weekday': day, 'opens_at': datetime.time(9), 'closes_at': datetime.time(18)} for day in range(1, 6)])


def downgrade() -> None:
    op.drop_table('working_hours')
    op.drop_table('holidays')
