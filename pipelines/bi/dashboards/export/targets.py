"""The tools that dashboards are exported for, and the one way in which all of them are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipelines.bi.dashboards.export import grafana, sql_files
from pipelines.bi.dashboards.export.account import Connection, ExportedAccount, read_account
from pipelines.bi.dashboards.export.files import WrittenFiles, write_files
from pipelines.bi.dashboards.export.freshness import with_freshness
from pipelines.bi.dashboards.export.superset import bundle
from pipelines.bi.dashboards.pages.all import PAGES
from pipelines.bi.dashboards.spec import Page


@dataclass(frozen=True)
class Target:
    """`files`: path → text; `patterns`: the files that belong to the account alone, so that those of tiles
    which are gone can be removed."""

    files: Callable[[ExportedAccount, Sequence[Page]], dict[str, str]]
    patterns: Callable[[ExportedAccount], list[str]]


TARGETS = {
    "superset": Target(bundle.files, bundle.patterns),
    "grafana": Target(grafana.files, grafana.patterns),
    "sql": Target(partial(sql_files.files, conditions=sql_files.plain), sql_files.patterns),
    "metabase": Target(partial(sql_files.files, conditions=sql_files.metabase), sql_files.patterns)}


@dataclass(frozen=True)
class Exported:
    """What was written: an account's pages and tiles, and the marts that show nothing or an older state."""

    account: ExportedAccount
    pages: int
    tiles: int
    files: WrittenFiles


def export(
    connection: Connection, schema: str, target: str, folder: Path, url: str, language: str | None
) -> Exported:
    """Writes the dashboards of an account for a tool. `url`: address of the database for the role that reads
    it, without a password. Raises SyncRefusedError if the account was not read yet, and UsageError if the
    folder cannot be written into."""
    account = read_account(connection, schema, PAGES, url, language)
    pages = with_freshness(PAGES, account)
    chosen = TARGETS[target]
    written = write_files(folder, chosen.files(account, pages), chosen.patterns(account))
    return Exported(account, len(pages), sum(len(page.tiles) for page in pages), written)
