"""deploy/helm-values.yaml agrees with the program and with the other files of deploy/. The chart itself is
not here: what it makes of these values was compared by hand (docs/deploy.md)."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from pipelines.config.settings import Settings
from tests.support.commands import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
TEXT = (DEPLOY / "helm-values.yaml").read_text(encoding="utf-8")
VALUES: dict[str, Any] = yaml.safe_load(TEXT)
DAGSTER: dict[str, Any] = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
[CODE] = VALUES["dagster-user-deployments"]["deployments"]
LOCK = (REPOSITORY / "requirements" / "runtime.txt").read_text(encoding="utf-8")


def images(values: Any) -> list[dict[str, str]]:
    """Every image that the values name, wherever it is."""
    if isinstance(values, list):
        return [found for each in values for found in images(each)]
    if not isinstance(values, dict):
        return []
    own = [values["image"]] if "image" in values else []
    return own + [found for each in values.values() for found in images(each)]


def test_one_image_for_every_role() -> None:
    found = images(VALUES)
    assert len(found) == 3
    assert all(each == CODE["image"] for each in found)
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{CODE["image"]["tag"]}"' in project


def test_the_image_holds_what_the_roles_need() -> None:
    for package in ("dagster-k8s", "dagster-postgres", "dagster-webserver", "psycopg2-binary"):
        assert re.search(rf"^{package}==", LOCK, re.M), package
    [version] = re.findall(r"^dagster==(\S+)", LOCK, re.M)
    assert f"--version {version} " in TEXT


def test_the_code_server_loads_our_definitions() -> None:
    arguments = CODE["dagsterApiGrpcArgs"]
    assert arguments[0] == "-m" and arguments[2:] == ["--empty-working-directory"]
    assert importlib.import_module(arguments[1]).defs.resolve_all_job_defs()
    assert set(CODE["env"]) <= {name.upper() for name in Settings.model_fields}


def test_limits_and_timeouts_are_those_of_dagster_yaml() -> None:
    daemon = VALUES["dagsterDaemon"]
    limits = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]["tagConcurrencyLimits"]
    assert limits == DAGSTER["concurrency"]["runs"]["tag_concurrency_limits"]
    monitoring = {re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", name): value
                  for name, value in daemon["runMonitoring"].items()}
    longest = DAGSTER["run_monitoring"].pop("max_runtime_seconds")
    assert monitoring == DAGSTER["run_monitoring"]
    kept = {kind: VALUES["retention"][kind]["purgeAfterDays"] for kind in ("schedule", "sensor")}
    assert kept == {kind: each["purge_after_days"] | {"started": 30}
                    for kind, each in DAGSTER["retention"].items()}
    launcher = VALUES["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    assert launcher["jobSpecConfig"]["activeDeadlineSeconds"] == longest


def test_dagster_s_storage_uses_the_driver_that_works() -> None:
    assert VALUES["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"


def test_the_run_launcher_takes_its_configuration() -> None:
    """As the chart renders it: names with underscores."""
    launcher = pytest.importorskip("dagster_k8s").K8sRunLauncher
    from dagster._config import process_config, resolve_to_config_type

    own = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    rendered = {"service_account_name": "dagster", "instance_config_map": "dagster-instance",
                "dagster_home": "/opt/dagster/dagster_home",
                "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
                "image_pull_policy": own["imagePullPolicy"],
                "run_k8s_config": {re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", name): value
                                   for name, value in own["runK8sConfig"].items()}}
    checked = process_config(resolve_to_config_type(launcher.config_type()), rendered)
    assert checked.success, checked.errors
    spoilt = process_config(resolve_to_config_type(launcher.config_type()), rendered | {"imagePull": 1})
    assert not spoilt.success, "this test can fail"
