"""Contender `dlt`, used as its documentation recommends: rest_api source, merge by primary key, child tables.

Nested lists go to child tables, and everything that can run in parallel does. It runs in its own environment;
the last line of its output is JSON. The settings are the fastest found here: CSV for COPY instead of INSERTs,
two workers for normalization, several files per table.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence

WITH = {"leads": "contacts,catalog_elements,loss_reason,source_id,source,is_price_modified_by_robot",
        "contacts": "catalog_elements",
        "companies": "catalog_elements", "notes": "is_pinned"}


def main() -> int:
    arguments = _parse_arguments()
    os.environ |= {
        "RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR", "EXTRACT__WORKERS": "9",
        "EXTRACT__MAX_PARALLEL_ITEMS": "20", "NORMALIZE__WORKERS": arguments.workers,
        "NORMALIZE__START_METHOD": "fork", "LOAD__WORKERS": "4", "LOAD__DELETE_COMPLETED_JOBS": "true",
        "DATA_WRITER__BUFFER_MAX_ITEMS": "20000", "EXTRACT__DATA_WRITER__FILE_MAX_ITEMS": "20000",
        "DLT_DATA_DIR": arguments.folder}
    import dlt  # it reads the environment when it is imported
    from dlt.sources.rest_api import rest_api_source
    paths = arguments.lists.split(",")
    began = time.monotonic()
    source = rest_api_source(_source_config(arguments.url, arguments.token, paths))
    pipeline = dlt.pipeline("bench", pipelines_dir=arguments.folder,
                            destination=dlt.destinations.postgres(arguments.database), dataset_name="bench")
    info = pipeline.run(source, loader_file_format=arguments.format)
    info.raise_on_failed_jobs()
    counts = pipeline.last_trace.last_normalize_info.row_counts
    steps = {step.step: round((step.finished_at - step.started_at).total_seconds(), 2)
             for step in pipeline.last_trace.steps}
    sys.stdout.write("\n" + json.dumps({
        "seconds": time.monotonic() - began,
        "records": sum(counts.get(path.replace("/", "_"), 0) for path in paths),
        "rows": sum(counts.values()), "steps": steps}) + "\n")
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("--url", "--token", "--database", "--lists", "--folder"):
        parser.add_argument(name, required=True)
    parser.add_argument("--format", default="csv", choices=("csv", "insert_values"))
    parser.add_argument("--workers", default="2")
    return parser.parse_args()


def _source_config(url: str, token: str, paths: Sequence[str]) -> dict[str, object]:
    """Returns the configuration of dlt's rest_api source for these lists."""
    return {
        "client": {"base_url": f"{url}/api/v4/", "auth": {"type": "bearer", "token": token},
                   "paginator": {"type": "page_number", "base_page": 1, "page_param": "page",
                                 "total_path": None, "stop_after_empty_page": True}},
        "resource_defaults": {"primary_key": "id", "write_disposition": "merge"},
        "resources": [_resource(path) for path in paths]}


def _resource(path: str) -> dict[str, object]:
    key = path.rsplit("/", 1)[-1]
    parameters: dict[str, object] = {"limit": 100 if key == "events" else 250}
    if key in WITH:
        parameters["with"] = WITH[key]
    return {"name": path.replace("/", "_"), "parallelized": True,
            "endpoint": {"path": path, "params": parameters, "data_selector": f"_embedded.{key}",
                         "response_actions": [{"status_code": 204, "action": "ignore"}]}}


if __name__ == "__main__":
    sys.exit(main())
