"""What live accounts show: status and source of talks; history of tasks and of elements of catalogs

Revision: 2c7f4d91ab35
Revises: 3c7d18e5a9f4
Date: 2026-11-29 14:10:00
"""

import sqlalchemy as sa
from alembic import op

revision: str = '2c7f4d91ab35'
down_revision: str | None = '3c7d18e5a9f4'
branch_labels: str | None = None
depends_on: str | None = None

RECORDS = 'Kind of record: leads, contacts, companies or customers'
ASSIGNED = 'Kind of record: leads, contacts, companies, customers or tasks'
FIELD_OWNERS = 'Kind of record: leads, contacts, companies, customers or catalog_elements'
ALL = 'Kind of record: leads, contacts, companies, customers, tasks or catalog_elements'
UNTIL_MADE = "; all: every record's, which is so until history has been made for the first time"
COMMENTS = (
    # table, column ('': the table itself), before, after
    ('talks', '', 'Talks (беседы) in messengers; amoCRM does not list them, they are found through events',
     'Talks (беседы) in messengers: those that amoCRM lists, and those that events name'),
    ('responsible_history', 'entity_type', RECORDS, ASSIGNED),
    ('custom_field_history', 'entity_type', RECORDS, FIELD_OWNERS),
    ('observations', 'entity_type', RECORDS, ALL),
    ('history_due', 'entity_type', RECORDS + UNTIL_MADE, ALL + UNTIL_MADE),
)


def comment(table: str, column: str, text: str) -> None:
    place = f'COLUMN "{table}"."{column}"' if column else f'TABLE "{table}"'
    quoted = text.replace("'", "''")
    op.get_bind().exec_driver_sql(f"COMMENT ON {place} IS '{quoted}'")


def upgrade() -> None:
    op.add_column('talks', sa.Column('status', sa.Text(), nullable=True,
                                     comment='in_work, closed, nps_scheduled, nps_in_progress, with_error, …'))
    op.add_column('talks', sa.Column('source_id', sa.BigInteger(), nullable=True,
                                     comment='Source that it came through'))
    for table, column, _, after in COMMENTS:
        comment(table, column, after)
    # the next sync makes the history of the tasks and elements that are here already
    op.execute("INSERT INTO history_due (entity_type, entity_id) SELECT 'tasks', id FROM tasks")
    op.execute("INSERT INTO history_due (entity_type, entity_id) SELECT DISTINCT 'catalog_elements', entity_id "
               "FROM events WHERE entity_id IS NOT NULL AND entity_type ~ '^catalog_[0-9]+$' "
               "AND type ~ '^custom_field_([0-9]+_)?value_changed$'")


def downgrade() -> None:
    for table, column, before, _ in COMMENTS:
        comment(table, column, before)
    op.execute("DELETE FROM history_due WHERE entity_type IN ('tasks', 'catalog_elements')")
    op.execute("DELETE FROM observations WHERE entity_type IN ('tasks', 'catalog_elements')")
    op.execute("DELETE FROM responsible_history WHERE entity_type = 'tasks'")
    op.execute("DELETE FROM custom_field_history WHERE entity_type = 'catalog_elements'")
    op.drop_column('talks', 'source_id')
    op.drop_column('talks', 'status')
