"""What Dagster loads (workspace.yaml). Loading needs no network, no database and no secret: those are met when a run starts."""

from __future__ import annotations

import dagster as dg

from pipelines.orchestration.assets import Syncer, sync_account
from pipelines.orchestration.checks import CHECKS
from pipelines.orchestration.schedules import SCHEDULES, SYNCS

defs = dg.Definitions(assets=[sync_account], asset_checks=CHECKS, jobs=SYNCS, schedules=SCHEDULES, resources={"syncer": Syncer()},
                      executor=dg.in_process_executor)
