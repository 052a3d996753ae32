"""Asset checks: what is true of an account's tables after a sync. One per entity and question; they read, and never change anything."""

from collections.abc import Iterator

import dagster as dg
import psycopg

from pipelines.assets import ACCOUNTS, PREFIX
from pipelines.entities import ENTITIES
from pipelines.history import consistency
from pipelines.observe import KINDS
from pipelines.references import Resolved, references_of, resolved
from pipelines.resources import open_mirror
from pipelines.shapes import shape

ENOUGH = 0.95
REFERENCES = "references_resolve"
HISTORY = "history_is_consistent"
WITH_REFERENCES = [entity for entity in ENTITIES if next(references_of(shape(entity.model).table), None)]


def described(measured: list[Resolved]) -> dict[str, str]:
    return {each.column: f"{each.found:,} of {each.named:,} found in {each.target} ({each.share:.1%})" for each in measured}


@dg.multi_asset_check(
    specs=[dg.AssetCheckSpec(REFERENCES, asset=[PREFIX, entity.name], partitions_def=ACCOUNTS,
                             description=f"At least {ENOUGH:.0%} of what each column refers to is there; users who left are the usual rest")
           for entity in WITH_REFERENCES], can_subset=True)
def references_resolve(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Measures, per column, the share of references that resolve."""
    mirror = open_mirror()
    wanted = {key.asset_key for key in context.selected_asset_check_keys}
    with psycopg.connect(mirror.conninfo, autocommit=True) as connection:
        for entity in WITH_REFERENCES:
            key = dg.AssetKey([PREFIX, entity.name])
            if key in wanted:
                measured = resolved(connection, mirror.schema, shape(entity.model))
                yield dg.AssetCheckResult(passed=all(each.share >= ENOUGH for each in measured), asset_key=key, check_name=REFERENCES,
                                          severity=dg.AssetCheckSeverity.WARN, metadata=described(measured))


@dg.multi_asset_check(
    specs=[dg.AssetCheckSpec(HISTORY, asset=[PREFIX, kind], partitions_def=ACCOUNTS, description="The last interval of each living record is what "
                             "the record is; intervals neither overlap nor leave gaps; nothing is counted twice") for kind in KINDS.values()],
    can_subset=True)
def history_is_consistent(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Measures the history tables, per kind of record."""
    mirror = open_mirror()
    with psycopg.connect(mirror.conninfo, autocommit=True) as connection:
        measured = consistency(connection, mirror.schema)
    for key in sorted({each.asset_key for each in context.selected_asset_check_keys}):
        of = [each for each in measured if each.entity_type == key.path[-1]]
        yield dg.AssetCheckResult(passed=not any(each.wrong for each in of), asset_key=key, check_name=HISTORY,
                                  severity=dg.AssetCheckSeverity.WARN, metadata={each.name: str(each) for each in of})
