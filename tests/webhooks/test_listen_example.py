"""The example of docs/webhooks.md runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from pipelines.entities.registry import entity_named
from pipelines.load.batch import Batch
from pipelines.load.loader import Loader, configure_session
from pipelines.normalize.normalizer import normalizer
from tests.support.commands import REPOSITORY
from tests.support.equality import ZONE
from tests.support.webhooks import wait_until

LISTENS = (
    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN amocrm_changes' "
    "AND state = 'idle'")
EXAMPLE = re.findall(r"```python\n(.*?)```",
                     (REPOSITORY / "docs" / "webhooks.md").read_text(encoding="utf-8"), re.S)


def landed(database: str, *ids: int) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        configure_session(connection)
        normal, batch = normalizer(entity_named("leads"), ()), Batch()
        batch.add(normal.normalize_page([{"id": number, "name": f"Deal {number}", "price": 5}
                                         for number in ids], {}, ZONE), 1, "test")
        Loader(connection, "amocrm", "amocrm", normal).load(batch)


def test_the_example_prints_committed_changes(database: str, tmp_path: Path) -> None:
    (example,) = EXAMPLE
    assert len([line for line in example.splitlines() if line and "import" not in line]) <= 10
    (tmp_path / "follow.py").write_text(example, encoding="utf-8")
    follower = subprocess.Popen([sys.executable, str(tmp_path / "follow.py"), database],
                                stdout=subprocess.PIPE, text=True)
    assert follower.stdout
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES ('amocrm', 'amocrm', '')")
        wait_until(lambda: connection.execute(LISTENS).fetchall())
    landed(database, 7)
    assert follower.stdout.readline() == "leads 7 Deal 7 5\n"
    landed(database, 7)
    landed(database, *range(100, 250))
    landed(database, 8, 9)
    lines = [follower.stdout.readline() for _ in range(2)]
    assert lines == ["leads 8 Deal 8 5\n",
                     "leads 9 Deal 9 5\n"], "unchanged rows and large changes are not listed"
    follower.kill()
    follower.communicate()


@pytest.mark.parametrize("count", [100, 101])
def test_many_changes_at_once_are_notified_without_ids(database: str, count: int) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES ('amocrm', 'amocrm', '')")
        connection.execute("LISTEN amocrm_changes")
        landed(database, *range(1, count + 1))
        (notice,) = connection.notifies(timeout=60, stop_after=1)
    assert ('"ids":null' in notice.payload) is (count > 100)
