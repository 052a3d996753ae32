"""bi_stored: the steps of marts whose rows are stored

Revision: 7d2e90b4c6f1
Revises: 2c7f4d91ab35
Date: 2026-11-29 15:40:00
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = '7d2e90b4c6f1'
down_revision: str | None = '2c7f4d91ab35'
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    instant = postgresql.TIMESTAMP(timezone=True)
    op.create_table('bi_stored',
    sa.Column('name', sa.Text(), nullable=False, comment='Name of the step'),
    sa.Column('table_name', sa.Text(), nullable=True,
              comment='Table that holds its rows; null: they were never stored'),
    sa.Column('marts', postgresql.ARRAY(sa.Text()), nullable=False, comment='Marts that read it'),
    sa.Column('lists', postgresql.ARRAY(sa.Text()), nullable=False,
              comment='Lists whose rows it is made from'),
    sa.Column('made_from', sa.Text(), nullable=True,
              comment='State of the tables that it was made from; it is refreshed when that changes'),
    sa.Column('as_of', instant, nullable=True,
              comment='It shows these tables as they were at this moment'),
    sa.Column('tried_at', instant, nullable=True,
              comment='When it was refreshed last, or that was tried'),
    sa.Column('seconds', sa.Double(), nullable=True, comment='How long that took, in seconds'),
    sa.Column('row_count', sa.BigInteger(), nullable=True, comment='Number of its rows'),
    sa.Column('fault', sa.Text(), nullable=True, comment='Why it could not be refreshed; null: it was'),
    sa.Column('failed_at', instant, nullable=True, comment='When it first could not'),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_bi_stored')),
    comment='The steps of marts whose rows are stored, in accounts of 100,000 deals and more: of which '
            'moment they are, and what is wrong with them'
    )


def downgrade() -> None:
    op.drop_table('bi_stored')
