"""`verify` names what differs: the column everywhere, the values on a terminal only, and none in the
database."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from pipelines.cli.reports import verification_notes
from pipelines.verify.verification import verify
from sandbox.process import SandboxProcess
from tests.support.mirrors import FAST_RETRIES, mirror_of, sync_mirror

SPOILT = ("UPDATE amocrm.leads SET name = 'Подменённая' WHERE id = %(lead)s",
          "DELETE FROM amocrm.lead_tags WHERE lead_id = %(tagged)s",
          "UPDATE amocrm.lead_custom_field_values SET value_text = 'Чужое' WHERE ctid = (SELECT min(ctid) "
          "FROM amocrm.lead_custom_field_values WHERE lead_id = %(valued)s)")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=60) as running:
        yield running


def test_columns_are_named_and_values_are_for_a_terminal_only(sandbox: SandboxProcess, database: str) -> None:
    assert sync_mirror(sandbox, database).exit_code == 0
    with psycopg.connect(database) as connection:
        tagged = connection.execute("SELECT min(lead_id) FROM amocrm.lead_tags").fetchone()
        assert tagged
        valued = connection.execute("SELECT min(lead_id) FROM amocrm.lead_custom_field_values "
                                    "WHERE lead_id <> %s", tagged).fetchone()
        assert valued
        lead = connection.execute("SELECT id, name FROM amocrm.leads WHERE id NOT IN (%s, %s) "
                                  "AND _deleted_at IS NULL ORDER BY id LIMIT 1",
                                  [tagged[0], valued[0]]).fetchone()
        assert lead
        for statement in SPOILT:
            connection.execute(statement.encode(),
                               {"lead": lead[0], "tagged": tagged[0], "valued": valued[0]})
    found = verify(mirror_of(sandbox, database).target(FAST_RETRIES), only=["leads"])
    assert found.exit_code == 3
    on_a_terminal, elsewhere = verification_notes(found, True), verification_notes(found)
    assert f"leads/{lead[0]}: stale: name (here Подменённая, in amoCRM {lead[1]})" in on_a_terminal
    assert f"leads/{lead[0]}: stale: name" in elsewhere
    tags = next(line for line in on_a_terminal if line.startswith(f"leads/{tagged[0]}: "))
    assert f"lead_tags (here empty, in amoCRM ({tagged[0]}," in tags
    values = next(line for line in elsewhere if line.startswith(f"leads/{valued[0]}: "))
    assert "lead_custom_field_values.value_text" in values
    with psycopg.connect(database) as connection:
        stored = str(connection.execute("SELECT json_agg(v) FROM mirror.verifications v").fetchone())
    for word in ("Подменённая", "Чужое", lead[1]):
        assert word not in stored and word not in "\n".join(elsewhere)
    assert all("Подменённая" not in repr(outcome) for outcome in found.outcomes)
