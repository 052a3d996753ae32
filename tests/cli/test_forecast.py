"""What a sync says of its own progress: on a terminal, in a pipe, for programs, and nothing."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator

import psycopg
import pytest
from rich.console import Console

from pipelines.cli.terminal import progress as displays
from pipelines.cli.terminal.forecast import Forecast, duration
from pipelines.cli.terminal.progress import JsonProgress, PlainProgress
from pipelines.extract.range_queue import RangeQueue, ReadMode
from pipelines.sync.context import EntityResult, PlannedEntity
from sandbox.process import SandboxProcess
from tests.cli.test_surroundings import shell
from tests.support.commands import CliInstallation, CommandResult
from tests.support.equality import differences

PLAN = [PlannedEntity("users", 1, False), PlannedEntity("tags", 4, False), PlannedEntity("leads", 1, True),
        PlannedEntity("events", 1, True)]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=50) as running:
        yield running


def finish(forecast: Forecast, *names: str) -> None:
    for name in names:
        forecast.finished(EntityResult(name))


def test_requests_left_become_exact_as_lists_say_their_length() -> None:
    forecast, made = Forecast(), [3]
    forecast.working("preparing the tables")
    assert str(forecast.outlook()) == "preparing the tables"
    forecast.planned(PLAN, lambda: made[0])
    assert str(forecast.outlook()) == "0 of 4 lists read, 3 requests made, at least 7 left"
    finish(forecast, "users")
    forecast.started("leads")
    forecast.advanced("leads", 250, 20_000, 79)
    assert str(forecast.outlook()) == "1 of 4 lists read, 3 requests made, at least 84 left"
    forecast.started("events")
    forecast.advanced("events", 100, None, None)
    assert forecast.outlook().is_minimum, "the events do not know how many they are"
    forecast.advanced("events", 200, 60_000, 598)
    assert str(forecast.outlook()) == "1 of 4 lists read, 3 requests made, about 681 left"
    assert forecast.outlook().reading == {"leads": (250, 20_000), "events": (200, 60_000)}
    forecast.started("tags")
    forecast.advanced("tags", 251, None, None)
    assert forecast.outlook().is_minimum, "a directory may be long, too"
    finish(forecast, "tags", "leads", "events")
    forecast.planned([PlannedEntity("files", 1, False), PlannedEntity("file_links", 1, True, "files")],
                     lambda: made[0])
    assert str(forecast.outlook()) == "0 of 2 lists read, 3 requests made, at least 2 left"
    files = EntityResult("files")
    files.counts.seen = 89
    forecast.finished(files)
    assert str(forecast.outlook()) == "1 of 2 lists read, 3 requests made, about 89 left"
    forecast.planned(PLAN, lambda: made[0])
    forecast.started("leads")  # hinted records are read once more
    assert forecast.outlook().lists_done == 4
    forecast.working("updating the history")
    assert str(forecast.outlook()) == "updating the history, 4 of 4 lists read, 3 requests made"


def test_the_time_left_follows_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now, made = [0.0], [0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    forecast = Forecast()
    forecast.planned(PLAN, lambda: made[0])
    for name in ("leads", "events"):
        forecast.advanced(name, 0, 1, 322)
    assert forecast.outlook().seconds_left is None
    now[0], made[0] = 10.0, 65
    assert forecast.outlook().seconds_left == pytest.approx(649 / 6.5)
    assert str(forecast.outlook()).endswith("about 649 left, about 2 min")
    now[0] = 75.0
    forecast.outlook()
    now[0], made[0] = 80.0, 75  # the first seconds count no more: 2 a second since
    assert forecast.outlook().seconds_left == pytest.approx(649 / 2)


@pytest.mark.parametrize(("seconds", "words"), [(0, "10 s"), (11, "20 s"), (90, "90 s"), (91, "2 min"),
                                                (3000, "50 min"), (7300, "2 h 10 min")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_events_left_follow_the_density_so_far() -> None:
    """The account began at second 10,000; nobody has events before."""
    queue = RangeQueue([(0, 20_000, ReadMode.ORDERED)], first=10_000)
    assert queue.rows_left() is None
    lease = queue.take()
    assert lease
    queue.count_rows(100)
    queue.report_progress(lease, -1, 19_000, 1000)  # newest first: a tenth of the account's life
    assert queue.rows_left() == 900
    queue.count_rows(300)
    queue.report_progress(lease, -1, 18_000, 1000)
    assert queue.rows_left() == 1600
    queue.report_progress(lease, 1, 15_000, 1000)  # oldest first
    assert queue.rows_left() == 400
    queue.advance(lease, 20_000)
    queue.release(lease)
    assert queue.rows_left() == 0


def test_the_line_comes_before_the_first_list_and_after_the_last_one(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displays, "PLAIN_INTERVAL_SECONDS", 0.02)
    text, program = io.StringIO(), io.StringIO()
    for display in (PlainProgress(Console(file=text, width=200)), JsonProgress(program)):
        with display:
            display.working("preparing the tables")
            time.sleep(0.1)
            display.planned(PLAN, lambda: 12)
            display.started("leads")
            display.advanced("leads", 500, 1000, 2)
            display.reached("leads: read")
            time.sleep(0.1)
            finish_all = EntityResult("leads", reason="the reason", requests=4)
            display.finished(finish_all)
            display.working("updating the history")
            time.sleep(0.1)
        length = len(text.getvalue())
        time.sleep(0.05)
        assert len(text.getvalue()) == length, "it went on after its end"
    lines = text.getvalue().splitlines()
    assert lines[0] == "preparing the tables"
    assert "0 of 4 lists read, 12 requests made, at least 8 left; leads 500 of about 1,000" in lines
    assert "leads: complete, 0 records, 0 rows changed, 4 requests, 0.0 s - the reason" in lines
    assert lines.count("updating the history, 1 of 4 lists read, 12 requests made") > 1
    events = [json.loads(line) for line in program.getvalue().splitlines()]
    assert {each["event"] for each in events} == {"progress", "planned", "reached", "list"}
    middle = next(each for each in events if each["event"] == "progress" and each.get("reading"))
    assert middle | {"seconds": 0} == {
        "event": "progress", "doing": "", "lists_done": 0, "lists": 4, "requests": 12, "requests_left": 8,
        "is_minimum": True, "seconds_left": None, "seconds": 0,
        "reading": {"leads": {"records": 500, "total": 1000}}}


def test_lines_become_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    display, waits = PlainProgress(Console(file=io.StringIO())), list[float]()
    now = [0.0]

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        now[0] += seconds
        return now[0] > 3600

    monkeypatch.setattr(display._stopped, "wait", wait)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    display.forecast = Forecast()
    display._repeat()
    assert waits[0] == 5 and waits[-1] == 60 and len(waits) < 100


def events_of(result: CommandResult) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.out.splitlines()]


def test_a_sync_for_programs(sandbox: SandboxProcess, installation: CliInstallation, database: str) -> None:
    result = installation.run("sync", "--json")
    assert (result.code, result.error) == (0, "")
    events = events_of(result)
    assert [each["doing"] for each in events if each["event"] == "progress"][:3] == [
        "opening the database", "preparing the tables", "asking amoCRM about the account"]
    planned = next(each for each in events if each["event"] == "planned")
    lists = [each["list"] for each in events if each["event"] == "list"]
    assert set(lists) == set(planned["lists"]) and len(set(lists)) > 25  # type: ignore[call-overload]
    assert [each["event"] for each in events].count("reached") == 1
    last = events[-1]
    assert (last["event"], last["exit_code"]) == ("result", 0)
    assert str(last["verdict"]).startswith("Sync complete.")
    with psycopg.connect(database) as connection:
        assert differences(connection, sandbox) == []
    assert installation.call("sync", "--quiet", "--only", "tasks") == CommandResult(0, "", "")
    sandbox.fault("404", match="^/api/v4/tasks[?]", times=1)
    wrong = installation.call("sync", "--quiet", "--only", "tasks")
    assert wrong.code == 1 and wrong.out == ""
    assert re.fullmatch(r"tasks: failed: .*\nSync failed: .*", wrong.error.strip())


@pytest.mark.slow
def test_every_account_for_programs_and_for_cron(sandbox: SandboxProcess,
                                                 installation: CliInstallation) -> None:
    assert installation.call("sync", "--only", "pipelines").code == 0
    assert installation.run("sync", "--all", "--quiet", "--only", "users") == CommandResult(0, "", "")
    result = installation.run("sync", "--all", "--json", "--only", "users")
    assert (result.code, result.error) == (0, "")
    events = events_of(result)
    assert [each["event"] for each in events] == ["account", "result"]
    assert events[0]["name"] == "amocrm" and events[0]["label"] == "complete" and events[1]["complete"] == 1
    both = installation.call("sync", "--quiet", "--json")
    assert both.code == 2 and "use one of them" in both.error


@pytest.mark.parametrize("words", [("--json",), ("--all", "--json")], ids=" ".join)
def test_a_result_that_could_not_be_written_is_no_success(words: tuple[str, ...], database: str,
                                                          installation: CliInstallation) -> None:
    """Lost progress stops no sync, and no other account."""
    assert installation.call("sync", "--only", "pipelines").code == 0
    code, _, error = shell(installation, ">/dev/full", "sync", *words, "--only", "users")
    assert code == 1 and "the output could not be written (No space left on device)" in error
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM mirror.sync_runs WHERE entity = 'users' "
                                  "AND state = 'complete'").fetchone() == (1,)
