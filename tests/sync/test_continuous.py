"""From a change in amoCRM to a committed row through webhooks alone: no sync runs here, unless a test needs
one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from pipelines import erasure
from pipelines.orchestration import continuous_workers
from pipelines.orchestration.continuous_workers import ContinuousWorkers
from pipelines.postgres.locks import continuous_sync_lock, full_scan_lock
from pipelines.sync import continuous
from pipelines.sync.continuous import ContinuousSync
from pipelines.sync.exclusive import Fence, SyncLockLostError, current_fence
from pipelines.webhooks.subscription import digest, secret_of
from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.equality import differences
from tests.support.mirrors import FAST_RETRIES, mirror_of, sync_mirror
from tests.support.webhooks import (
    ACCOUNT,
    notify,
    post,
    register_address,
    running_continuous_sync,
    running_receiver,
    subscribe_webhook,
    wait_until,
    wait_until_processed,
)

REPORTED = {"leads", "contacts", "companies", "customers", "tasks", "unsorted", "talks"}
"""The lists that webhooks report, if nothing else changes."""


@dataclass
class Live:
    """A mirrored account with a receiver, a webhook and a continuous sync."""

    sandbox: SandboxProcess
    database: str
    base: str
    destination: str
    drain: ContinuousWorkers

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database, autocommit=True) as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def value(self, query: str, *parameters: Any) -> Any:
        return self.rows(query, *parameters)[0][0]

    def equal(self, only: set[str] = REPORTED) -> None:
        wait_until_processed(self.sandbox, self.database)
        with psycopg.connect(self.database) as connection:
            assert differences(connection, self.sandbox, only=only) == []

    def first(self, path: str, place: int = 5) -> dict[str, Any]:
        found: dict[str, Any] = self.sandbox.truth(path)[place]
        return found


@pytest.fixture(scope="module")
def live(postgres_server: str, template_database: str) -> Iterator[Live]:
    with SandboxProcess(scale=60) as sandbox, temporary_database(
            postgres_server, template_database) as database, running_receiver(database) as base:
        sync_mirror(sandbox, database)
        destination = subscribe_webhook(sandbox, database, base)
        with running_continuous_sync(sandbox, database) as drain:
            yield Live(sandbox, database, base, destination, drain)


@pytest.fixture(autouse=True)
def calm(request: pytest.FixtureRequest) -> Iterator[None]:
    """Resets every switch after a test, and waits until nothing is queued."""
    yield
    if "live" in request.fixturenames:
        live: Live = request.getfixturevalue("live")
        live.sandbox.switch(webhook_delivery="once")
        live.sandbox.clear_faults()
        live.equal()


def test_the_subscription_covers_every_documented_event_and_its_secret_is_not_stored(live: Live) -> None:
    hook = next(each for each in live.sandbox.truth("webhooks") if each["destination"] == live.destination)
    assert {"add_lead", "note_customer", "responsible_task", "add_talk", "restore_company",
            "status_lead"} <= set(hook["settings"])
    assert live.value("SELECT refused FROM mirror.webhook_addresses") == ["add_unsorted", "update_unsorted",
                                                                          "delete_unsorted"]
    sync_mirror(live.sandbox, live.database, only=["webhooks"])
    secret = secret_of(live.destination)
    assert (live.value("SELECT destination FROM amocrm.webhooks WHERE NOT disabled")
            == live.destination.replace(secret, "…"))
    assert live.value("SELECT digest FROM mirror.webhook_addresses") == digest(secret)


def test_a_change_becomes_a_row_as_soon_as_it_is_delivered(live: Live,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the continuous sync's own polling, which is off here."""
    monkeypatch.setattr(continuous_workers, "POLL_SECONDS", 3600.0)
    monkeypatch.setattr("pipelines.sync.continuous.HISTORY_DELAY_SECONDS", 3600.0)
    lead = live.first("leads")["id"]
    notify(live.database)
    for price in (77123, 77124, 77125):
        live.sandbox.mutate({"op": "patch", "list": "leads", "id": lead, "set": {"price": price}})
        wait_until(lambda price=price: live.value("SELECT price FROM amocrm.leads WHERE id = %s", lead)
                   == price)  # type: ignore[misc]
    monkeypatch.undo()
    notify(live.database)


def test_every_change_that_webhooks_report_arrives(live: Live) -> None:
    kinds = ["create", "edit", "move", "responsible", "value_set", "value_cleared", "tag", "untag", "delete",
             "restore", "task", "incoming", "sorted_out"]
    live.sandbox.apply_random_changes(80, "everything", kinds)
    live.equal()
    assert live.rows("SELECT DISTINCT unnest(unknown) FROM mirror.webhook_deliveries") == []


@pytest.mark.parametrize("form", ["duplicate", "reorder"])
def test_repeated_and_reordered_deliveries_are_handled(live: Live, form: str) -> None:
    live.sandbox.switch(webhook_delivery=form)
    made = live.sandbox.mutate({"op": "create", "list": "leads", "record": {"name": "here and gone"}})[0]
    live.sandbox.mutate(*({"op": "delete", "list": "leads", "id": live.sandbox.mutate(
        {"op": "create", "list": "leads", "record": {"name": f"{form} {number}"}})[0]} for number in range(
            3)),
        {"op": "delete", "list": "leads", "id": made})
    live.sandbox.apply_random_changes(20, form, ["edit", "delete", "restore", "create"])
    live.equal()


def test_a_delete_before_its_add_and_an_old_delivery_are_handled(live: Live) -> None:
    lead = live.sandbox.mutate({"op": "create", "list": "leads", "record": {"name": "short"}})[0]
    wait_until_processed(live.sandbox, live.database)
    live.sandbox.mutate({"op": "delete", "list": "leads", "id": lead})
    wait_until(lambda: live.value("SELECT _deleted_at IS NOT NULL FROM amocrm.leads WHERE id = %s", lead))
    assert post(live.destination, f"leads[delete][0][id]={lead}&again=1") == 200
    for body, in live.rows("SELECT body FROM mirror.webhook_deliveries WHERE body LIKE %s",
                           f"%{lead}%".encode()):
        assert post(live.destination, body) == 200
    wait_until_processed(live.sandbox, live.database)
    assert live.value("SELECT _deleted_at IS NOT NULL FROM amocrm.leads WHERE id = %s",
                      lead), "an old add does not restore a record"
    living = live.first("leads")["id"]
    assert post(live.destination, f"leads[delete][0][id]={living}") == 200
    wait_until_processed(live.sandbox, live.database)
    assert live.value("SELECT _deleted_at IS NULL FROM amocrm.leads WHERE id = %s",
                      living), "a delete is confirmed by asking for the id"


def test_a_forged_delivery_changes_nothing(live: Live) -> None:
    lead = live.first("leads")
    forged = (f"leads[update][0][id]={lead['id']}&leads[update][0][name]=forged&leads[update][0][price]=1"
              f"&leads[status][0][id]={lead['id']}"
              "&leads[add][0][id]=999999999999999999&leads[add][1][id]=424242&contacts[add][0][id]=1"
              "&task[add][0][id]=7&talk[add][0][talk_id]=9"
              "&unsorted[add][0][uid]=made-up&leads[note][0][note][id]=5")
    assert post(live.destination, forged) == 200
    wait_until_processed(live.sandbox, live.database)
    assert live.value("SELECT name FROM amocrm.leads WHERE id = %s", lead["id"]) == lead["name"]
    assert live.rows("SELECT id FROM amocrm.leads WHERE id IN (999999999999999999, 424242)") == []


def test_another_accounts_ids_mean_nothing_here(live: Live) -> None:
    asked = live.sandbox.stats()["requests"]
    assert post(live.destination, f"leads[update][0][id]={live.first('leads')['id']}&account[id]=1") == 200
    wait_until_processed(live.sandbox, live.database)
    assert live.sandbox.stats()["requests"] == asked
    assert live.value("SELECT unknown FROM mirror.webhook_deliveries ORDER BY id DESC LIMIT 1") == [
        "account[1]"]


def test_an_id_that_amocrm_refuses_does_not_block_others(live: Live) -> None:
    live.sandbox.fault("400", match="/leads", times=2)
    assert post(live.destination, "leads[update][0][id]=31337") == 200
    wait_until_processed(live.sandbox, live.database)


def test_notes_and_talks(live: Live) -> None:
    lead, talk = live.first("leads")["id"], live.first("talks", 0)
    note = live.sandbox.mutate({"op": "create", "list": "leads/notes",
                                "record": {"entity_id": lead, "params": {"text": "just said"}}})[0]
    live.sandbox.mutate({"op": "patch", "list": "talks", "id": str(talk["talk_id"]), "set": {"rate": 4}})
    wait_until(lambda: live.rows("SELECT params ->> 'text' FROM amocrm.notes WHERE id = %s", note)
               == [("just said",)])
    wait_until(lambda: live.value("SELECT rate FROM amocrm.talks WHERE talk_id = %s", talk["talk_id"]) == 4)


def test_records_that_a_delivery_names_by_others_are_read_again(live: Live) -> None:
    """Deliveries that name only the deal of an incoming lead, the record of a note, the talk of a message, an
    element of a catalog. The changes themselves are not delivered."""
    lead, talk = live.first("leads", 8)["id"], live.first("talks", 0)["talk_id"]
    note = live.sandbox.mutate({"op": "create", "list": "leads/notes",
                                "record": {"entity_id": lead, "params": {"text": "first"}}})[0]
    wait_until(lambda: live.rows("SELECT FROM amocrm.notes WHERE id = %s", note))
    element = live.first("catalogs/11803/elements")["id"]
    text = "SELECT params ->> 'text' FROM amocrm.notes WHERE id = %s"
    rate = "SELECT rate FROM amocrm.talks WHERE talk_id = %s"
    for body, change, query, key, value in (
            (f"unsorted[update][0][data][leads][id]={lead}", ("leads", lead, {"name": "by its lead"}),
             "SELECT name FROM amocrm.leads WHERE id = %s", lead, "by its lead"),
            (f"leads[note][0][note][element_id]={lead}&leads[note][0][note][note_type]=4",
             ("leads/notes", note, {"params": {"text": "second"}}), text, note, "second"),
            (f"outgoing_message[add][0][talk_id]={talk}", ("talks", str(talk), {"rate": 7}), rate, talk, 7),
            (f"add[0][talk_id]={talk}&add[0][author][id]=a-b", ("talks", str(talk), {"rate": 8}), rate, talk,
             8),
            (f"catalogs[update][0][id]={element}", ("catalogs/11803/elements", element, {"name": "Цоколь"}),
             "SELECT name FROM amocrm.catalog_elements WHERE id = %s", element, "Цоколь")):
        live.sandbox.switch(webhook_delivery="lose")
        live.sandbox.mutate({"op": "patch", "list": change[0], "id": change[1], "set": change[2]})
        live.sandbox.switch(webhook_delivery="once")
        assert post(live.destination, body) == 200
        wait_until(lambda query=query, key=key, value=value:  # type: ignore[misc]
                   live.value(query, key) == value)
    assert live.value("SELECT count(*) FROM mirror.webhook_deliveries WHERE unknown IS NOT NULL "
                      "AND convert_from(body, 'UTF8') LIKE %s", f"%={talk}%") == 0
    wait_until(lambda: live.value("SELECT count(*) FROM mirror.hints WHERE key LIKE 'of/%%'") == 0)


def test_outcomes_of_incoming_leads_are_recorded(live: Live) -> None:
    accepted, declined = live.sandbox.mutate({"op": "incoming", "name": "first"},
                                             {"op": "incoming", "name": "second"})
    wait_until(lambda: len(live.rows("SELECT FROM amocrm.unsorted WHERE uid IN (%s, %s)", accepted, declined))
               == 2)
    wait_until_processed(live.sandbox, live.database)
    live.sandbox.mutate({"op": "accept", "uid": accepted}, {"op": "decline", "uid": declined})
    wait_until_processed(live.sandbox, live.database)
    reported = dict(live.rows("SELECT uid, action FROM mirror.unsorted_outcomes WHERE uid IN (%s, %s)",
                              accepted, declined))
    assert reported == {accepted: "accept", declined: "decline"}
    alive = dict(live.rows(
        "SELECT o.action, l._deleted_at IS NULL FROM mirror.unsorted_outcomes o JOIN amocrm.leads l "
        "ON l.id = ANY(o.leads) "
        "WHERE o.uid IN (%s, %s)", accepted, declined))
    assert alive == {"accept": True, "decline": False}, "and the rows say the same"


def test_one_delivery_of_the_digital_pipeline_is_enough(live: Live) -> None:
    lead, before = live.first("leads"), live.sandbox.delivery_counts()
    target = next(each["id"] for pipeline in live.sandbox.truth("leads/pipelines")
                  if pipeline["id"] == lead["pipeline_id"]
                  for each in pipeline["_embedded"]["statuses"]
                  if each["type"] == 0 and each["id"] not in (lead["status_id"], 142, 143))
    live.sandbox.switch(webhook_delivery="lose")
    live.sandbox.digital_pipeline(live.destination, lead["id"], target)
    wait_until(lambda: live.value("SELECT status_id FROM amocrm.leads WHERE id = %s", lead["id"]) == target)
    assert live.sandbox.delivery_counts()["sent"] == before["sent"] + 1


def test_a_lost_delivery_is_repaired_by_the_next_sync(live: Live) -> None:
    live.sandbox.switch(webhook_delivery="lose")
    live.sandbox.apply_random_changes(30, "lost",
                                      ["create", "edit", "move", "delete", "restore", "task", "tag"])
    assert sync_mirror(live.sandbox, live.database).exit_code == 0
    live.equal()


def test_continuous_sync_works_during_a_sync_and_leaves_suspects_to_it(live: Live) -> None:
    lead = live.first("leads")["id"]
    with psycopg.connect(live.database,
                         autocommit=True) as sync, full_scan_lock(ACCOUNT).try_hold(sync) as held:
        assert held
        sync.execute(
            "INSERT INTO mirror.hints (account, listing, key, told_at, is_suspect) VALUES ('amocrm', "
            "'leads', '77', now(), true)")
        live.sandbox.mutate({"op": "incoming", "name": "later"},
                            {"op": "patch", "list": "leads", "id": lead, "set": {"price": 88001}})
        wait_until(lambda: live.value("SELECT price FROM amocrm.leads WHERE id = %s", lead) == 88001)
        assert live.rows("SELECT listing FROM mirror.hints WHERE hooked_at IS NOT NULL") == [
            ("leads/unsorted",)]
        assert live.rows("SELECT key FROM mirror.hints WHERE is_suspect") == [("77",)]
    notify(live.database)
    wait_until(lambda: live.rows("SELECT listing FROM mirror.hints WHERE hooked_at IS NOT NULL") == [])
    assert live.rows("SELECT key FROM mirror.hints WHERE is_suspect") == [
        ("77",)], "a suspicion is for the sweep that knows all of them"
    with psycopg.connect(live.database, autocommit=True) as connection:
        connection.execute("DELETE FROM mirror.hints WHERE is_suspect")


def test_a_sync_reads_deliveries_that_were_not_processed(live: Live) -> None:
    lead, talk = live.first("leads")["id"], live.first("talks", 0)["talk_id"]
    with psycopg.connect(live.database, autocommit=True) as connection:
        continuous_sync_lock(ACCOUNT).take(connection)
        connection.execute(
            "INSERT INTO mirror.webhook_deliveries (account, digest, body) VALUES ('amocrm', 'x', %s)",
            [f"leads[update][0][id]={lead}&unsorted[update][0][uid]=x&talk[add][0][talk_id]={talk}".encode()])
        connection.execute("UPDATE amocrm.leads SET name = 'wrong' WHERE id = %s", [lead])
        assert sync_mirror(live.sandbox, live.database, only=["leads", "unsorted", "talks"]).exit_code == 0
        assert connection.execute("SELECT listing FROM mirror.hints").fetchall() == []
        assert connection.execute("SELECT name FROM amocrm.leads WHERE id = %s",
                                  [lead]).fetchone() == (live.first("leads")["name"],)
    notify(live.database)


def test_an_erased_person_does_not_come_back_by_webhook(live: Live) -> None:
    contact = live.sandbox.mutate({"op": "create", "list": "contacts", "record": {"name": "Forget Me"}})[0]
    wait_until(lambda: live.rows("SELECT FROM amocrm.contacts WHERE id = %s", contact))
    with psycopg.connect(live.database, autocommit=True) as connection:
        erasure.erase_person(connection, ACCOUNT, ACCOUNT, "contacts", contact)
    assert live.rows("SELECT FROM mirror.webhook_deliveries WHERE body LIKE %s",
                     f"%{contact}%".encode()) == []
    live.sandbox.mutate({"op": "patch", "list": "contacts", "id": contact, "set": {"name": "Still Here"}})
    wait_until_processed(live.sandbox, live.database)
    assert live.rows("SELECT FROM amocrm.contacts WHERE id = %s", contact) == []
    live.sandbox.mutate({"op": "delete", "list": "contacts", "id": contact})


def test_every_commit_is_notified_and_readable(live: Live) -> None:
    lead, gone = (live.first("leads")["id"],
                  live.sandbox.mutate({"op": "create", "list": "leads", "record": {"name": "soon gone"}})[0])
    wait_until_processed(live.sandbox, live.database)
    with psycopg.connect(live.database, autocommit=True) as listener:
        listener.execute("LISTEN amocrm_changes")
        live.sandbox.mutate({"op": "patch", "list": "leads", "id": lead, "set": {"price": 99001}},
                            {"op": "delete", "list": "leads", "id": gone})
        heard = []
        for notice in listener.notifies(timeout=60):
            heard.append(json.loads(notice.payload))
            reported = {(number, each["deleted"]) for each in heard if each["entity"] == "leads"
                        for number in each["ids"] or ()}
            if {(lead, False), (gone, True)} <= reported:
                break
        assert listener.execute("SELECT price FROM amocrm.leads WHERE id = %s", [lead]).fetchone() == (99001,)
    assert {frozenset(each) for each in heard} == {frozenset(("account", "entity", "ids", "deleted"))}


def test_a_restricted_token_marks_nothing_deleted(live: Live, database: str) -> None:
    mirror = mirror_of(live.sandbox, database, amocrm_access_token=live.sandbox.manager_token)
    sync_mirror(live.sandbox, database, only=["leads"])
    with psycopg.connect(database, autocommit=True) as connection:
        mine = {lead["id"] for lead in live.sandbox.truth("leads")
                if lead["responsible_user_id"] == live.sandbox.manager_id}
        hidden = next(lead["id"] for lead in live.sandbox.truth("leads") if lead["id"] not in mine)
        connection.execute("UPDATE mirror.accounts SET learned_at = NULL")
        connection.execute(
            "INSERT INTO mirror.webhook_deliveries (account, digest, body) VALUES ('amocrm', 'x', %s)",
            [f"leads[delete][0][id]={hidden}".encode()])
        drain = ContinuousSync(ACCOUNT, lambda: mirror.target(FAST_RETRIES), mirror.connect)
        while drain.process_once():
            pass
        drain.close()
        assert connection.execute("SELECT _deleted_at FROM amocrm.leads WHERE id = %s",
                                  [hidden]).fetchone() == (None,)
        assert connection.execute("SELECT count(*) FROM mirror.hints").fetchone() == (0,)


def test_its_history_is_fenced(live: Live, database: str) -> None:
    """Its full-scan lock is lost, and a sync has begun: it leaves the history, too, to the sync."""
    mirror = mirror_of(live.sandbox, database)
    sync_mirror(live.sandbox, database)
    drain = ContinuousSync(ACCOUNT, lambda: mirror.target(FAST_RETRIES), mirror.connect)
    drain.target = mirror.target(FAST_RETRIES)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO amocrm.history_due VALUES ('leads', 1)")
        real = current_fence

        def outrun(*arguments: Any) -> Fence:
            found = real(*arguments)
            connection.execute("UPDATE mirror.accounts SET sync_number = sync_number + 1")
            return found

        with pytest.MonkeyPatch.context() as patch, pytest.raises(SyncLockLostError):
            patch.setattr(continuous, "current_fence", outrun)
            drain.update_history()
        assert connection.execute("SELECT count(*) FROM amocrm.history_due").fetchone() == (1,)
        drain.update_history()
        assert connection.execute("SELECT count(*) FROM amocrm.history_due").fetchone() == (0,)
    drain.close()


def test_two_drains_of_one_account_take_turns(live: Live) -> None:
    with running_continuous_sync(live.sandbox, live.database):
        live.sandbox.apply_random_changes(10, "two", ["edit", "create"])
        live.equal()


def test_many_deliveries_at_once_are_processed(live: Live) -> None:
    address = register_address(live.database, live.base, "another")
    leads = [lead["id"] for lead in live.sandbox.truth("leads")]
    asked = live.sandbox.stats()["requests"]
    with psycopg.connect(live.database, autocommit=True) as connection:
        connection.cursor().executemany(
            "INSERT INTO mirror.webhook_deliveries (account, digest, body) VALUES ('amocrm', sha256(%s), %s)",
            [(body, body) for number in range(2_500)
             for body in [f"leads[update][0][id]={leads[number % len(leads)]}&n={number}".encode()]])
    assert post(address, f"leads[update][0][id]={leads[0]}") == 200
    wait_until_processed(live.sandbox, live.database)
    assert live.sandbox.stats()["requests"] - asked < 60, "a lead is read again once for all its deliveries"
