"""The alerts as a sensor of Dagster's daemon. It starts no run."""

from __future__ import annotations

import dagster as dg

from pipelines.alerts.channels import open_channels
from pipelines.alerts.notify import alert
from pipelines.config.settings import SettingsError, load_settings, load_shard
from pipelines.errors import SyncRefusedError
from pipelines.installation import open_installation

INTERVAL_SECONDS = 120


def alert_sensors() -> list[dg.SensorDefinition]:
    """Returns the sensor, or none if no channel is set. An invalid setting keeps the sensor: its ticks fail,
    and say why. Its name holds the shard's, as those of jobs and schedules do."""
    try:
        if not open_channels(load_settings()):
            return []
    except SettingsError:
        pass
    return [dg.SensorDefinition(
        name="_".join(filter(None, ("alerts_sensor", load_shard()))), evaluation_fn=tick,
        minimum_interval_seconds=INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells people what an account needs, once, and once that it is good again "
                    "(MIRROR_ALERT_…)")]


def tick(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Sends what has changed. A channel that does not take it fails the tick, and is tried again by the
    next one."""
    try:
        outcome = alert(open_installation())
    except SyncRefusedError as reason:
        return dg.SkipReason(str(reason))
    if outcome.not_sent:
        raise dg.Failure(f"not delivered, and tried again in {INTERVAL_SECONDS} s: "
                         + "; ".join(outcome.not_sent), allow_retries=False)
    return dg.SkipReason("; ".join(outcome.sent)
                         or f"nothing new; problems that people know of: {len(outcome.problems)}")
