"""Access that is not what it should be, configured or pasted: it is told, nothing is lost by it, and no other account is touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sandbox.process import SandboxProcess
from tests.commands import Done, Installation
from tests.helpers import KEY
from tests.token_help import change, pair_of, stored


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[list[SandboxProcess]]:
    with SandboxProcess(scale=50, accounts=2) as running:
        yield running.accounts


@pytest.fixture
def person(sandboxes: list[SandboxProcess], database: str, tmp_path: Path) -> Installation:
    """Whose settings hold the pair of the first account, as it was when it was configured."""
    pair = pair_of(sandboxes[0])
    return Installation(tmp_path, database, sandboxes[0], AMOCRM_ACCESS_TOKEN=pair.access_token, AMOCRM_REFRESH_TOKEN=pair.refresh_token,
                        AMOCRM_CLIENT_ID=pair.client_id, AMOCRM_CLIENT_SECRET=pair.client_secret, AMOCRM_REDIRECT_URI=pair.redirect_uri,
                        MIRROR_KEY=KEY.decode())


def refused(done: Done, code: int, *words: str) -> None:
    assert done.code == code and "Traceback" not in done.said, done.said
    assert all(word in done.said for word in words), done.said


def known(database: str) -> Any:
    with psycopg.connect(database) as connection:
        return connection.execute("SELECT name, base_url, configured_url, account_id, revoked_at FROM mirror.accounts ORDER BY 1").fetchall()


def test_the_settings_of_another_account_cost_nothing(sandboxes: list[SandboxProcess], person: Installation, database: str) -> None:
    """The pair has been renewed since: what the settings hold of it is spent, and what is stored exists nowhere else."""
    first, other = sandboxes
    assert person.call("sync", "--only", "accounts,tags").code == 0
    change(database, "expires_at = now() - interval '1 minute'")
    assert person.call("sync", "--only", "tags").code == 0
    before = stored(database), known(database)
    assert before[0]["refreshed_at"] is not None
    for more in ({"AMOCRM_REFRESH_TOKEN": ""}, {}):
        wrong = {"AMOCRM_BASE_URL": other.url, "AMOCRM_ACCESS_TOKEN": other.admin_token} | more
        for words in (("sync", "--only", "tags"), ("verify", "--only", "tags")):
            refused(person.call(*words, **wrong), 1, f"holds amoCRM account {first.account_id}", f"of account {other.account_id}", "AMOCRM_SCHEMA")
        refused(person.call("doctor", **wrong), 1, f"holds amoCRM account {first.account_id}")
        assert (stored(database), known(database)) == before
    change(database, "expires_at = now() - interval '1 minute'")
    assert person.call("sync", "--only", "tags").code == 0
    assert first.stats()["refresh_reuses"] == 0
