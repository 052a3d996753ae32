"""A moved account with the old address still configured: the new address is looked up once, not per
process."""

from __future__ import annotations

from sandbox.process import SandboxProcess
from tests.support.helpers import KEY
from tests.support.mirrors import FAST_RETRIES, mirror_of
from tests.support.tokens import token_pair


def test_a_stale_address_costs_one_refresh_until_it_changes(sandbox: SandboxProcess, database: str) -> None:
    old, pair = sandbox.url.replace("127.0.0.1", "localhost"), token_pair(sandbox)
    given = {"amocrm_access_token": pair.access_token, "amocrm_refresh_token": pair.refresh_token,
             "amocrm_client_id": pair.client_id, "amocrm_client_secret": pair.client_secret,
             "amocrm_redirect_uri": pair.redirect_uri, "mirror_key": KEY.decode()}
    assert mirror_of(sandbox, database, amocrm_base_url=old,
                     **given).target(FAST_RETRIES).client.get("account").status == 200
    sandbox.rename(sandbox.url.removeprefix("http://"))
    for _ in range(3):
        client = mirror_of(sandbox, database, amocrm_base_url=old, **given).target(FAST_RETRIES).client
        assert client.get("account").status == 200
    assert client.base_url == sandbox.url
    assert (sandbox.stats()["refreshes"], sandbox.stats()["refresh_reuses"]) == (1, 0)
    assert mirror_of(sandbox, database, amocrm_base_url="http://127.0.0.1:1",
                     **given).base_url() == "http://127.0.0.1:1"
    assert mirror_of(sandbox, database, amocrm_base_url=None, **given).base_url() == sandbox.url
