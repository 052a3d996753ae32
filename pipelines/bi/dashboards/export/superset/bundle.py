"""All files of Superset's export, as `superset import-directory -o` takes them. Each account has files of its
own, so one folder may hold several accounts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import yaml  # type: ignore[import-untyped]

from pipelines.bi.dashboards.export.account import ExportedAccount
from pipelines.bi.dashboards.export.files import MARK
from pipelines.bi.dashboards.export.superset.charts import Chart, charts_of
from pipelines.bi.dashboards.export.superset.datasets import (
    VERSION,
    Yaml,
    filter_dataset,
    filter_name,
    list_dataset,
    list_name,
    mart_dataset,
    names_of,
)
from pipelines.bi.dashboards.export.superset.pages import dashboard
from pipelines.bi.dashboards.spec import FILTERS, Kind, Page

PASSWORD_MASK = "XXXXXXXXXX"  # noqa: S105
"""What Superset writes in the place of a password, and reads as: keep the one that is there."""
HEAD = f"# {MARK} superset`: its next run replaces what is changed here.\n"
METADATA = {"version": VERSION, "type": "Dashboard", "timestamp": "2026-01-01T00:00:00+00:00"}


def files(account: ExportedAccount, pages: Sequence[Page]) -> dict[str, str]:
    """Path → text."""
    schema, tiles = account.schema, [tile for page in pages for tile in page.tiles]
    marts = sorted({tile.mart for tile in tiles if tile.kind is not Kind.LIST})
    names = {mart: names_of(mart, tiles, account.language) for mart in marts}
    lists = {tile.name: tile for tile in tiles if tile.kind is Kind.LIST}
    datasets = {mart: mart_dataset(account, each) for mart, each in names.items()}
    datasets |= {list_name(tile): list_dataset(account, tile) for tile in lists.values()}
    datasets |= {filter_name(each): filter_dataset(account, each) for each in FILTERS}
    found: dict[str, Yaml] = {"metadata.yaml": METADATA, f"databases/{schema}.yaml": _database(account)}
    found |= {f"datasets/{schema}/{name}.yaml": each for name, each in datasets.items()}
    for page in pages:
        charts: list[Chart] = []
        for tile in page.tiles:
            charts += charts_of(account, page, tile, None if tile.kind is Kind.LIST else names[tile.mart])
        found |= {f"charts/{schema}/{page.name}-{each.name}.yaml": each.content for each in charts}
        found[f"dashboards/{schema}/{page.name}.yaml"] = dashboard(account, page, pages, charts)
    return {path: HEAD + _text(content) for path, content in found.items()}


def patterns(account: ExportedAccount) -> list[str]:
    """The files that belong to this account alone."""
    return [f"{folder}/{account.schema}/*.yaml" for folder in ("datasets", "charts", "dashboards")]


def database_name(account: ExportedAccount) -> str:
    """Superset's name of the connection: unique there, whatever accounts are called."""
    return f"amoCRM {account.title} ({account.schema}, {account.id})"


def _database(account: ExportedAccount) -> Yaml:
    """The connection, as the role that may only read. The empty password lets Superset take the file before
    it has one; afterwards it keeps its own."""
    return {
        "database_name": database_name(account),
        "sqlalchemy_uri": _masked(account.url),
        "password": "",
        "cache_timeout": None,
        "expose_in_sqllab": True,
        "allow_run_async": False,
        "allow_ctas": False,
        "allow_cvas": False,
        "allow_dml": False,
        "allow_file_upload": False,
        "extra": {"allows_virtual_table_explore": True},
        "uuid": account.uuid("database"),
        "version": VERSION}


def _masked(url: str) -> str:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    netloc = f"{user}:{PASSWORD_MASK}{at}{host}"
    return urlunsplit(parts._replace(scheme="postgresql+psycopg2", netloc=netloc))


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes equal values out, each in its place, instead of referring from one to the other."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(content: Yaml) -> str:
    return str(yaml.dump(content, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=110))
