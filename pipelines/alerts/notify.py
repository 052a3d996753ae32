"""Compares what is wrong now with what each channel has been sent, and sends it the difference.

A channel that does not take the message gets it again at the next run; the others do not. What was sent is
stored after the channel has taken it, so a process killed in between sends it a second time, and never loses
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.accounts.target import Connection
from pipelines.alerts.channels import Channel, NotDeliveredError, open_channels
from pipelines.alerts.problems import State, find_problems
from pipelines.alerts.wording import Event, began, compose, ended, trial_message
from pipelines.errors import SyncRefusedError, UsageError
from pipelines.installation import Installation
from pipelines.migrate import pending_revisions
from pipelines.postgres.locks import ALERTS_LOCK

SELECT_TOLD = "SELECT account, problem FROM mirror.alerts WHERE channel = %s ORDER BY 1, 2"
INSERT_TOLD = """
INSERT INTO mirror.alerts (account, problem, channel)
SELECT name, %s, %s FROM mirror.accounts WHERE name = %s ON CONFLICT DO NOTHING"""
DELETE_TOLD = "DELETE FROM mirror.alerts WHERE account = %s AND problem = %s AND channel = %s"
NO_CHANNEL = ("no channel is set, so no one can be alerted: set MIRROR_ALERT_EMAIL, MIRROR_ALERT_SLACK, "
              "MIRROR_ALERT_TELEGRAM or MIRROR_ALERT_WEBHOOK (docs/settings.md)")
ALREADY_RUNNING = "another process is sending alerts at this moment: nothing was sent here. Run it again"
NOT_MIGRATED = ("the tables of `mirror` do not exist or are not up to date, so nothing was sent: run "
                "`amocrm-mirror migrate`, then this again")


@dataclass
class Outcome:
    """What a run of the alerts found and did."""

    problems: list[Event] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    not_sent: list[str] = field(default_factory=list)


def alert(mirror: Installation) -> Outcome:
    """Sends each channel what has begun and ended since its last message. Raises UsageError without a
    channel, SyncRefusedError while another process does this, or before `migrate`."""
    channels = open_channels(mirror.settings)
    if not channels:
        raise UsageError(NO_CHANNEL)
    mirror.require_database()
    if pending_revisions(mirror.conninfo, mirror.schema)["mirror"]:  # the configured account may not exist
        raise SyncRefusedError(NOT_MIGRATED)
    hours, outcome = mirror.settings.mirror_fresh_hours, Outcome()
    with mirror.connect_autocommit() as connection, ALERTS_LOCK.try_hold(connection) as was_free:
        if not was_free:
            raise SyncRefusedError(ALREADY_RUNNING)
        state = find_problems(connection, mirror.account, hours)
        current = {each.key: began(each, state.languages[each.account], hours) for each in state.problems}
        outcome.problems = list(current.values())
        for channel in channels:
            _tell(connection, channel, _changes(connection, channel, state, current), state, outcome)
    return outcome


def _changes(connection: Connection, channel: Channel, state: State,
             current: dict[tuple[str, str], Event]) -> list[Event]:
    """Returns what the channel has not been sent yet. Of accounts that are not watched, nothing."""
    told = {(row[0], row[1]) for row in connection.execute(SELECT_TOLD, [channel.name]).fetchall()}
    return [*(event for key, event in current.items() if key not in told),
            *(ended(account, kind, state.languages[account])
              for account, kind in sorted(told - current.keys()) if account in state.languages)]


def _tell(connection: Connection, channel: Channel, events: list[Event], state: State,
          outcome: Outcome) -> None:
    if not events:
        return
    languages = {state.languages[each.account] for each in events}
    try:
        channel.send(compose(events, languages.pop() if len(languages) == 1 else "en"))
    except NotDeliveredError as reason:
        outcome.not_sent.append(str(reason))
        return
    with connection.transaction():
        for each in events:
            if each.has_begun:
                connection.execute(INSERT_TOLD, [each.kind, channel.name, each.account])
            else:
                connection.execute(DELETE_TOLD, [each.account, each.kind, channel.name])
    outcome.sent.append(f"{channel.name}, changes: {len(events)}")


def try_channels(mirror: Installation) -> Outcome:
    """Sends a test message to each channel. Raises UsageError without one."""
    channels, outcome = open_channels(mirror.settings), Outcome()
    if not channels:
        raise UsageError(NO_CHANNEL)
    for channel in channels:
        try:
            channel.send(trial_message())
            outcome.sent.append(f"{channel.name}: a test message")
        except NotDeliveredError as reason:
            outcome.not_sent.append(str(reason))
    return outcome
