"""/metrics and `amocrm-mirror metrics`: each value, from one SQL statement, with bounded labels; and
/health."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from pipelines.entities.registry import ENTITIES
from pipelines.monitoring import exposition, server
from pipelines.monitoring.health import RECEIVER_REASON
from pipelines.monitoring.reading import read_accounts
from pipelines.postgres.connections import open_connection
from pipelines.postgres.locks import continuous_worker_lock, sync_lock
from tests.monitoring.conftest import running_monitor
from tests.support.commands import CliInstallation
from tests.support.webhooks import running_receiver, wait_until

Values = dict[tuple[str, ...], float]
PREFIX = exposition.PREFIX


def parsed(text: str) -> Values:
    """(name without the prefix, values of the labels in alphabetical order of their names …) → value."""
    return {(each.name.removeprefix(PREFIX), *(value for _, value in sorted(each.labels.items()))): each.value
            for family in text_string_to_metric_families(text) for each in family.samples}


@pytest.fixture(scope="module")
def shown(state: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the command prints."""
    done = CliInstallation(tmp_path_factory.mktemp("metrics"), state).call("metrics")
    assert done.code == 0, done.output
    return done.out


@pytest.fixture(scope="module")
def values(shown: str) -> Values:
    return parsed(shown)


@pytest.mark.parametrize(("sample", "value"), [
    (("database_ready",), 1), (("account_standing", "amocrm", "synced"), 1),
    (("account_standing", "paused", "paused"), 1), (("account_standing", "blocked", "blocked"), 1),
    (("account_standing", "fresh", "no_access"), 1), (("syncing", "amocrm"), 0),
    (("drain_running", "amocrm"), 0),
    (("webhook_on", "amocrm"), 1), (("token_usable", "amocrm"), 1), (("token_usable", "blocked"), 0),
    (("token_usable", "fresh"), 0), (("token_end_timestamp_seconds", "amocrm"), 1893456000),
    (("token_end_timestamp_seconds", "paused"), 1775001600),  # three months after 2026-01-01
    (("requests_total", "amocrm"), 1234), (("throttled_total", "amocrm"), 5),
    (("hints_waiting", "amocrm"), 2),
    (("hints_waiting", "fresh"), 0), (("hints_oldest_seconds", "fresh"), 0),
    (("deliveries_waiting", "amocrm"), 1),
    (("quarantine_records", "amocrm", "leads"), 2), (("quarantine_records", "amocrm", "tasks"), 0),
    (("list_state", "amocrm", "leads", "failed"), 1), (("list_state", "amocrm", "tasks", "interrupted"), 1),
    (("list_state", "amocrm", "customers", "skipped"), 1), (("list_state", "fresh", "leads", "never"), 1),
    (("last_run_seconds", "amocrm", "leads"), 0.5), (("last_run_records", "amocrm", "leads"), 1),
    (("last_run_requests", "amocrm", "leads"), 2), (("last_run_retries", "amocrm", "leads"), 1),
    (("last_run_rows", "amocrm", "inserted", "leads"), 0),
    (("verification_state", "amocrm", "leads", "different"), 1),
    (("verification_records", "amocrm", "leads"), 50),
    (("verification_differences", "amocrm", "missing", "leads"), 1),
    (("verification_differences", "amocrm", "extra", "leads"), 2),
    (("verification_differences", "amocrm", "stale", "leads"), 3),
    (("verification_timestamp_seconds", "amocrm", "leads"), 1767225600)])
def test_each_value(values: Values, sample: tuple[str, ...], value: float) -> None:
    assert values[sample] == value


def test_ages_and_instants(values: Values) -> None:
    now = time.time()
    assert 100 <= values["hints_oldest_seconds", "amocrm"] < 4000
    assert 400 <= values["deliveries_oldest_seconds", "amocrm"] < 4000
    assert 7200 <= values["list_lag_seconds", "amocrm", "leads"] < 7200 + 4000
    assert now - 12000 < values["list_complete_timestamp_seconds", "amocrm", "leads"] <= now - 7200
    assert now - 8000 < values["last_run_started_timestamp_seconds", "amocrm", "leads"] < now - 3500


def test_what_is_not_known_is_absent(values: Values) -> None:
    for name in (("token_end_timestamp_seconds", "blocked"), ("requests_total", "paused"),
                 ("webhook_on", "fresh"), ("drain_running", "fresh"),
                 ("list_complete_timestamp_seconds", "amocrm", "tasks"),
                 ("list_rows", "fresh", "leads"), ("last_run_finished_timestamp_seconds", "amocrm", "tasks")):
        assert name not in values


def test_labels_are_bounded_and_hold_no_content(shown: str) -> None:
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(shown):
        for sample in family.samples:
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    assert labels.keys() == {"account", "list", "state", "standing", "change", "kind", "version"}
    assert labels["account"] == {"amocrm", "paused", "blocked", "fresh"}, "the demo's account is left out"
    assert labels["list"] == {entity.name for entity in ENTITIES}
    assert "Алина" not in shown
    assert "secret" not in shown


def test_each_metric_is_declared_with_its_labels(shown: str) -> None:
    found = {family.name: family for family in text_string_to_metric_families(shown)}
    assert found.keys() == {PREFIX + each.name for each in exposition.METRICS}
    for each in exposition.METRICS:
        family = found[PREFIX + each.name]
        assert family.type == ("counter" if each.is_counter else "gauge")
        assert family.samples, f"{each.name} is tested with a value"
        assert {frozenset(sample.labels) for sample in family.samples} == {frozenset(each.labels)}


def test_locks_say_what_runs_and_one_statement_reads_all(state: str,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    execute = psycopg.Cursor.execute

    def listening(cursor: Any, query: Any, *rest: Any, **more: Any) -> Any:
        sent.append(query)
        return execute(cursor, query, *rest, **more)

    with (open_connection(state, autocommit=True) as holder,
          open_connection(state, autocommit=True) as connection,
          sync_lock("amocrm").hold(holder), continuous_worker_lock("amocrm").hold(holder)):
        monkeypatch.setattr(psycopg.Cursor, "execute", listening)
        [mine] = [each for each in read_accounts(connection, "amocrm") if each.name == "amocrm"]
        assert len(sent) == 2, "the limits of the transaction, and the statement"
    assert (mine.facts["is_syncing"], mine.facts["is_drained"]) == (True, True)
    assert {each["list"]: each["state"] for each in mine.lists}["tasks"] == "running"
    assert sum(b"SELECT" in each for each in sent if isinstance(each, bytes)) == 1


def test_rows_come_from_the_statistics(state: str) -> None:
    with psycopg.connect(state, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE amocrm.leads")
    with open_connection(state, autocommit=True) as connection:
        [mine] = [each for each in read_accounts(connection, "amocrm") if each.name == "amocrm"]
    assert {each["list"]: each["rows"] for each in mine.lists}["leads"] == 2


def test_a_file_is_written_whole_and_again(state: str, tmp_path: Path) -> None:
    installation, out = CliInstallation(tmp_path, state), tmp_path / "amocrm.prom"
    out.write_text("of before", encoding="utf-8")
    for _ in range(2):
        done = installation.call("metrics", "--out", "amocrm.prom")
        assert done.code == 0, done.output
        assert "values of 4 accounts" in done.error
        assert parsed(out.read_text(encoding="utf-8"))["database_ready",] == 1
    assert out.stat().st_mode & 0o777 == 0o644, "the node exporter is another user"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["amocrm.prom"], "no draft is left"


@pytest.mark.parametrize(("words", "said"), [
    (("--out", "absent/amocrm.prom"), "absent/amocrm.prom cannot be written"),
    (("--out", "x.prom", "--port", "8781"), "use one of them"), (("--host", "0.0.0.0"), "go with --port")])
def test_wrong_options_are_one_sentence(state: str, tmp_path: Path, words: tuple[str, ...],
                                        said: str) -> None:
    done = CliInstallation(tmp_path, state).call("metrics", *words)
    assert done.code == 2
    assert said in done.output


def test_a_database_without_tables_writes_no_file(empty_database: str, tmp_path: Path) -> None:
    done = CliInstallation(tmp_path, empty_database).call("metrics", "--out", "amocrm.prom")
    assert done.code == 1
    assert "run `amocrm-mirror migrate`" in done.output
    assert not (tmp_path / "amocrm.prom").exists()


# The server


def health(address: str, part: str = "") -> tuple[int, Any]:
    answer = requests.get(f"{address}/health{part}", timeout=60)
    return answer.status_code, answer.json()


def test_the_server_shows_the_same_as_the_command(monitor: str, shown: str) -> None:
    answer = requests.get(f"{monitor}/metrics", timeout=60)
    assert answer.headers["Content-Type"] == exposition.CONTENT_TYPE
    assert "server" not in answer.headers
    assert without_ages(parsed(answer.text)) == without_ages(parsed(shown))


def without_ages(values: Values) -> Values:
    return {name: value for name, value in values.items()
            if not name[0].endswith(("lag_seconds", "oldest_seconds", "read_seconds", "list_rows"))}


def test_health_says_what_is_not_ready_and_why(monitor: str) -> None:
    status, found = health(monitor)
    assert status == 503
    assert found["ready"] is False
    assert found["database"] == {"ready": True, "why": []}
    assert "receiver" not in found, "none was named"
    stopped, waiting = found["drain"]["why"]
    assert stopped.startswith("amocrm: no process reads what its webhooks name: keep `amocrm-mirror serve`")
    assert waiting.startswith("amocrm: 1 deliveries wait, the oldest for ")
    mine, barred, fresh = found["syncs"]["why"]
    assert mine.startswith("amocrm: not complete within 26 h: ")
    assert "customers" not in mine, "skipped lists are no failure"
    assert barred == "blocked: amoCRM has blocked it: `amocrm-mirror doctor --account blocked`"
    assert fresh.startswith("fresh: no access was given yet")
    assert health(monitor, "/database") == (200, {"ready": True, "why": []})
    assert health(monitor, "/drain") == (503, found["drain"])
    assert requests.get(f"{monitor}/health/nothing", timeout=60).status_code == 404


def test_health_of_a_mirror_at_rest(database: str) -> None:
    """The second look, after what was missing has come."""
    with running_receiver(database) as receiver, running_monitor(database, receiver) as address, \
            psycopg.connect(database, autocommit=True) as connection:
        wait_until(lambda: health(address, "/receiver")[0] == 200)
        assert health(address) == (200, {"ready": True, **{
            name: {"ready": True, "why": []} for name in ("database", "receiver", "drain", "syncs")}})
        assert requests.get(f"{receiver}/metrics", timeout=60).status_code == 404, "a public port"
        connection.execute("INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES ('a', 'a', '')")
        connection.execute("INSERT INTO mirror.tokens (account, access_token) VALUES ('a', 'x')")
        wait_until(lambda: health(address)[0] == 503, 20)
        connection.execute("INSERT INTO mirror.sync_runs (run_id, account, entity, state, watermark) "
                           "SELECT '1', 'a', name, 'complete', now() FROM unnest(%s::text[]) name",
                           [[entity.name for entity in ENTITIES]])
        wait_until(lambda: health(address)[0] == 200, 20)


def test_a_receiver_that_is_gone(database: str) -> None:
    with running_monitor(database, "http://127.0.0.1:1") as address:
        status, found = health(address)
    assert status == 503
    assert found["receiver"]["why"] == [RECEIVER_REASON]


def test_without_postgres_the_rest_is_said_and_it_comes_back(database: str, monkeypatch: pytest.MonkeyPatch,
                                                             caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(server, "CACHE_SECONDS", 0.0)
    with running_monitor(database) as address, psycopg.connect(database, autocommit=True) as connection:
        assert health(address)[0] == 200
        connection.execute("ALTER TABLE mirror.accounts RENAME TO elsewhere")
        try:
            answer = requests.get(f"{address}/metrics", timeout=60)
            assert answer.status_code == 200
            assert parsed(answer.text).keys() >= {("database_ready",)}
            assert parsed(answer.text)["database_ready",] == 0
            status, found = health(address)
            assert status == 503
            [reason] = found["database"]["why"]
            assert reason.startswith("the state cannot be read from Postgres")
            assert "elsewhere" not in str(found)
            assert "mirror.accounts" not in str(found)
        finally:
            connection.execute("ALTER TABLE mirror.elsewhere RENAME TO accounts")
        assert health(address)[0] == 200
    assert sum("the state cannot be read" in line for line in caplog.messages) == 1, "said once"


def test_the_receiver_says_when_postgres_has_gone_silent(database: str,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.webhooks.inbox_writer.STALE_SECONDS", -1.0)
    with running_receiver(database) as receiver:
        wait_until(lambda: "Postgres has not answered for" in str(health(receiver)[1].get("why")))
        status, found = health(receiver)
    assert status == 503
    assert found.keys() == {"ready", "kept", "why"}
