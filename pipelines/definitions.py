"""Dagster's code location (workspace.yaml names it). Loading it needs no network, no database and no secret:
a run uses those when it starts."""

from __future__ import annotations

import dagster as dg

import amocrm_mirror.module_path  # noqa: F401  # before all that it decides
from pipelines.alerts.sensor import alert_sensors
from pipelines.orchestration.assets import DagsterSyncRunner, sync_account
from pipelines.orchestration.checks import CHECKS
from pipelines.orchestration.schedules import BATCH_JOBS, SCHEDULES, SYNC_JOBS, command_line_job

defs = dg.Definitions(assets=[sync_account], asset_checks=CHECKS,
                      jobs=[command_line_job(), *SYNC_JOBS, *BATCH_JOBS], schedules=SCHEDULES,
                      sensors=alert_sensors(),
                      resources={"syncer": DagsterSyncRunner()}, executor=dg.in_process_executor)
