"""sales_plans, which is the account's own to fill

Revision: 3c7d18e5a9f4
Revises: 5b9e04d7c218
Date: 2026-11-29 13:25:00
"""

import sqlalchemy as sa
from alembic import op

revision: str = '3c7d18e5a9f4'
down_revision: str | None = '5b9e04d7c218'
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table('sales_plans',
    sa.Column('month', sa.Date(), nullable=False, comment='First day of the month'),
    sa.Column('responsible_user_id', sa.BigInteger(), server_default='0', autoincrement=False, nullable=False,
              comment='User whose plan it is; 0: of all users together'),
    sa.Column('pipeline_id', sa.BigInteger(), server_default='0', autoincrement=False, nullable=False,
              comment='Pipeline of the plan; 0: all pipelines together'),
    sa.Column('value', sa.Numeric(), nullable=True,
              comment="Value of the deals to be won, in the account's currency; null: not planned"),
    sa.Column('deals', sa.BigInteger(), nullable=True, comment='Number of deals to be won; null: not planned'),
    sa.CheckConstraint('extract(day FROM month) = 1', name=op.f('ck_sales_plans_month_is_its_first_day')),
    sa.PrimaryKeyConstraint('month', 'responsible_user_id', 'pipeline_id', name=op.f('pk_sales_plans')),
    comment='Sales plans by month, user and pipeline: yours to fill, as amoCRM does not give out its own. '
            'The view plan_fact compares them with the deals that were won'
    )


def downgrade() -> None:
    op.drop_table('sales_plans')
