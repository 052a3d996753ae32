"""Asks Dagster's web server what its page asks."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

ASSETS = (
    "{assetNodes {assetKey {path} groupName description partitionKeys jobNames repository {name location "
    "{name}}}}")
LAUNCH = """mutation ($with: ExecutionParams!) {launchPipelineExecution(executionParams: $with) {
  __typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}}}"""
STATUS = "query ($run: ID!) {runOrError(runId: $run) {... on Run {status}}}"


class DagsterWeb:
    """The web server on a port of this machine, and the partition (account) that its runs are for."""

    def __init__(self, port: int, partition: str) -> None:
        self.partition = partition
        self.url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return json.load(answer)["data"]

    def assets(self, seconds: float = 120) -> list[dict[str, Any]]:
        """Returns the assets once the web server is up and has loaded them."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                nodes: list[dict[str, Any]] = self.ask(ASSETS)["assetNodes"]
                if nodes:
                    return nodes
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                pass
            assert time.monotonic() < deadline, "the web server did not come up"
            time.sleep(0.5)

    def materialize(self, node: dict[str, Any], paths: list[list[str]], seconds: float = 300) -> str:
        """Launches a run as the UI's button does, and waits for its end."""
        return self.run_job(node, node["jobNames"][0], {}, {"dagster/partition": self.partition},
                            [{"path": path} for path in paths], seconds)[1]

    def run_job(self, node: dict[str, Any], job: str, config: dict[str, Any], tags: dict[str, str],
                assets: list[dict[str, Any]] | None = None, seconds: float = 300) -> tuple[str, str]:
        """Launches a run of a job, and waits for its end. Returns its id and status."""
        selector = {"repositoryLocationName": node["repository"]["location"]["name"],
                    "repositoryName": node["repository"]["name"], "pipelineName": job}
        selector |= {"assetSelection": assets, "assetCheckSelection": []} if assets else {}
        launched = self.ask(LAUNCH, **{"with": {
            "selector": selector, "mode": "default", "runConfigData": config,
            "executionMetadata": {"tags": [{"key": key, "value": tag} for key, tag in tags.items()]}}})
        run, deadline = launched["launchPipelineExecution"]["run"]["runId"], time.monotonic() + seconds
        while (status := self.ask(STATUS, run=run)["runOrError"]["status"]) not in (
                "SUCCESS", "FAILURE", "CANCELED"):
            assert time.monotonic() < deadline, status
            time.sleep(0.3)
        return str(run), str(status)
