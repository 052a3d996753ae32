"""The account's webhook from the command line and by schedule: registered, inspected, given a new address,
enabled again, removed."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import requests

from pipelines.definitions import defs
from pipelines.orchestration.schedules import SCHEDULES
from pipelines.webhooks import subscription
from pipelines.webhooks.uninstall import uninstall_handler
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation
from tests.support.mirrors import mirror_of
from tests.support.webhooks import is_known, post, running_receiver, wait_until

BASE = "http://127.0.0.1:9/hooks"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=50) as running:
        yield running


@pytest.fixture
def person(sandbox: SandboxProcess, database: str, tmp_path: Path) -> Iterator[CliInstallation]:
    made = CliInstallation(tmp_path, database, sandbox)
    yield made
    for hook in ours(sandbox):
        requests.delete(f"{sandbox.url}/api/v4/webhooks", json={"destination": hook["destination"]},
                        timeout=60, headers={"Authorization": f"Bearer {sandbox.admin_token}"})
    sandbox.switch(webhook_settings="reject", webhook_reenable="on")


def ours(sandbox: SandboxProcess) -> list[dict[str, Any]]:
    return [hook for hook in sandbox.truth("webhooks") if "127.0.0.1" in hook["destination"]]


def digests(database: str) -> list[str]:
    with psycopg.connect(database) as connection:
        return [row[0]
                for row in connection.execute("SELECT digest FROM mirror.webhook_addresses").fetchall()]


def test_subscribing_again_leaves_one_webhook(person: CliInstallation, sandbox: SandboxProcess,
                                              database: str) -> None:
    done = person.call("webhooks", "subscribe", "--url", BASE + "/")
    assert done.code == 0 and "amoCRM reports 32 events: add_lead" in done.output, done.output
    assert "not available in this account: add_unsorted, update_unsorted, delete_unsorted" in done.output
    (hook,) = ours(sandbox)
    assert {"add_message", *(f"note_{kind}" for kind in ("lead", "contact", "company", "customer"))} <= {
        *hook["settings"]}
    secret = subscription.secret_of(hook["destination"])
    assert hook["destination"] == f"{BASE}/amocrm/amocrm/{secret}" and len(secret) >= 40
    assert secret not in done.output and digests(database) == [subscription.digest(secret)]
    sandbox.switch(webhook_settings="accept")
    assert person.call("webhooks", "subscribe", "--url", BASE).code == 0
    assert [each["destination"] for each in ours(sandbox)] == [hook["destination"]], "the same address"
    assert "http://127.0.0.1:10" not in str(ours(sandbox))
    assert person.call("webhooks", "subscribe", "--url", "http://127.0.0.1:10").code == 0
    (moved,) = ours(sandbox)
    assert (moved["destination"].startswith("http://127.0.0.1:10/amocrm/amocrm/")
            and "add_unsorted" in moved["settings"])
    assert digests(database) == [subscription.digest(subscription.secret_of(moved["destination"]))]


def test_rotating_withdraws_the_old_address_and_unsubscribing_all(person: CliInstallation,
                                                                  sandbox: SandboxProcess,
                                                                  database: str) -> None:
    assert "run `amocrm-mirror webhooks subscribe" in person.call("webhooks", "rotate").output
    with running_receiver(database) as base:
        assert person.call("webhooks", "subscribe", "--url", base).code == 0
        (old,) = ours(sandbox)
        wait_until(lambda: is_known(old["destination"]))
        assert person.call("webhooks", "rotate").code == 0
        (new,) = ours(sandbox)
        assert new["destination"] != old["destination"] and new["settings"] == old["settings"]
        wait_until(lambda: is_known(new["destination"]))
        assert (post(new["destination"], "a=1"), post(old["destination"], "a=1")) == (200, 404)
        assert "amoCRM sends nothing any more" in person.call("webhooks", "unsubscribe").output
        wait_until(lambda: post(new["destination"], "a=1") == 404)
    assert ours(sandbox) == [] and digests(database) == []
    assert person.call("webhooks", "unsubscribe").code == 0, "again"


@pytest.mark.parametrize(("url", "why"), [("http://hooks.example.com", "use https"),
                                          ("hooks.example.com", "is not the address of a web server"),
                                          ("https://хуки.рф", "no Cyrillic"),
                                          ("https://a.example/?x=1", "is not the address of a web server")])
def test_an_unusable_address_is_refused(person: CliInstallation, url: str, why: str) -> None:
    done = person.call("webhooks", "subscribe", "--url", url)
    assert done.code == 2 and why in done.output


def test_a_plan_without_webhooks_is_reported_and_leaves_nothing(person: CliInstallation,
                                                                sandbox: SandboxProcess,
                                                                database: str) -> None:
    sandbox.fault("400", match="webhooks", times=0)
    done = person.call("webhooks", "subscribe", "--url", BASE)
    sandbox.clear_faults()
    assert done.code == 1 and "amoCRM does not accept a webhook for this account" in done.output, done.output
    assert digests(database) == []


def test_status(person: CliInstallation, sandbox: SandboxProcess, database: str) -> None:
    assert person.call("webhooks", "status").code == 3
    assert person.call("webhooks", "subscribe", "--url", BASE).code == 0
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO mirror.webhook_deliveries (account, digest, body, times, told, unknown, heeded_at, "
            "settled_at, "
            "last_received_at) VALUES ('amocrm', 'a', 'x', 2, '{leads[update]}', NULL, now(), "
            "now() + interval '1 s', now()), "
            "('amocrm', 'b', 'y', 1, '{odd[add]}', '{odd[add]}', NULL, NULL, now() - interval '5 min')")
    done = person.call("webhooks", "status")
    assert (done.code == 3 and "2 stored, received 3 times" in done.output
            and "1 deliveries, 0 records to read again; the oldest for 30" in done.output)
    assert ("nothing is processing them" in done.output and "odd[add] (not understood; kept)" in done.output
            and "1.00 s from arrival to commit" in done.output)
    found = json.loads(person.call("webhooks", "status", "--json").out)
    assert (found["deliveries"], found["unknown"], found["webhook"]["is_disabled"], found["exit_code"]) == (
        2, 1, False, 3)


def tick(instance: dg.DagsterInstance) -> Any:
    schedule = next(each for each in SCHEDULES if each.name == "webhooks_schedule")
    found = schedule.evaluate_tick(
        dg.build_schedule_context(instance, repository_def=defs.get_repository_def()))
    return ([request.partition_key for request in found.run_requests] if found.run_requests
            else found.skip_message)


def test_a_disabled_webhook_is_enabled_and_the_gap_is_read(person: CliInstallation, sandbox: SandboxProcess,
                                                           tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in person.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        instance.add_dynamic_partitions("accounts", ["amocrm"])
        assert person.call("migrate").code == 0
        assert tick(instance) == "no account has a webhook"
        assert person.call("webhooks", "subscribe", "--url", BASE).code == 0
        assert tick(instance) == "amocrm: the webhook is on"
        switched_off(sandbox)
        assert tick(instance) == ["amocrm"], "a sync covers the gap"
        assert ours(sandbox)[0]["disabled"] is False and tick(instance) == "amocrm: the webhook is on"
        switched_off(sandbox)
        sandbox.switch(webhook_reenable="off")
        assert tick(instance) == ["amocrm"]
        done = person.call("webhooks", "status")
        assert done.code == 3 and "SWITCHED OFF by amoCRM" in done.output


def switched_off(sandbox: SandboxProcess) -> None:
    (hook,) = ours(sandbox)
    sandbox.mutate({"op": "patch", "list": "webhooks", "id": hook["id"], "set": {"disabled": True}})


def test_the_disable_hook_is_accepted_by_its_signature(sandbox: SandboxProcess, database: str) -> None:
    mirror = mirror_of(sandbox, database, amocrm_client_id="ours",
                       amocrm_client_secret="its secret")  # noqa: S106
    mirror.target()
    with psycopg.connect(database, autocommit=True) as connection, running_receiver(
            database, disable=uninstall_handler(mirror.connect, lambda: mirror.encryption,
                                                mirror.configured_tokens)) as base:
        connection.execute("UPDATE mirror.accounts SET account_id = 7")
        signed = hmac.new(b"its secret", b"ours|7", hashlib.sha256).hexdigest()
        address = f"{base}/amocrm/disabled"

        def asked(**parameters: str) -> int:
            return requests.get(address, params=parameters, timeout=60).status_code

        assert asked(account_id="7", client_uuid="ours") == 400
        assert asked(account_id="7", client_uuid="ours", signature="0" * 64) == 403
        assert connection.execute("SELECT revoked_at FROM mirror.accounts").fetchone() == (None,)
        assert requests.post(address, timeout=60).status_code == 405
        assert asked(account_id="7", client_id="ours", signature=signed) == 200
        assert connection.execute("SELECT revoked_at IS NOT NULL FROM mirror.accounts").fetchone() == (True,)
