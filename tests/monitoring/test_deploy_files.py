"""The alert rules and the dashboard agree with a running exporter: each metric, label and word that they use
is in what it shows, or declared."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from pipelines.monitoring.exposition import METRICS, PREFIX
from pipelines.postgres.embedded.postmaster import free_port
from tests.support.commands import REPOSITORY
from tests.support.webhooks import is_listening, wait_until

RULES_FILE = REPOSITORY / "deploy" / "prometheus" / "alerts.yaml"
RULES: list[dict[str, Any]] = yaml.safe_load(RULES_FILE.read_text(encoding="utf-8"))["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads(
    (REPOSITORY / "deploy" / "grafana" / "amocrm-mirror.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
SELECTOR = re.compile(rf"({PREFIX}\w+)(?:\{{([^}}]*)\}})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
EXPRESSIONS = [*((rule["alert"], rule["expr"]) for rule in RULES),
               *((panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"])]


@pytest.fixture(scope="module")
def exported(monitor: str) -> dict[str, set[str]]:
    """Name → labels of every sample that the exporter shows."""
    text = requests.get(f"{monitor}/metrics", timeout=60).text
    return {sample.name: set(sample.labels) for family in text_string_to_metric_families(text)
            for sample in family.samples}


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS, ids=[title for title, _ in EXPRESSIONS])
def test_every_metric_label_and_word_exists(exported: dict[str, set[str]], title: str,
                                            expression: str) -> None:
    selectors = SELECTOR.findall(expression)
    assert selectors
    labels = set[str]()
    for name, matchers in selectors:
        labels |= exported[name]
        for label, _, value in MATCHER.findall(matchers):
            assert label in exported[name], f"{name} has no label {label}"
            assert value == "$account" or set(value.split("|")) <= set(words_of(name)), f"{name}: {value}"
    for names in GROUPING.findall(expression):
        assert {name.strip() for name in names.split(",")} <= labels


def words_of(name: str) -> Iterator[str]:
    """The words that the metric's own help names in parentheses."""
    [text] = [each.text for each in METRICS if PREFIX + each.name == name]
    for found in re.findall(r"\(([^)]*)\)", text):
        yield from found.split(", ")


def test_the_check_finds_what_does_not_exist(exported: dict[str, set[str]]) -> None:
    for wrong in (f"{PREFIX}lists", f'{PREFIX}list_state{{lists="x"}}',
                  f'{PREFIX}list_state{{state="broken"}}', f"sum by (color) ({PREFIX}syncing)"):
        with pytest.raises((AssertionError, KeyError)):
            test_every_metric_label_and_word_exists(exported, "wrong", wrong)


def labels_in_text(text: str) -> set[str]:
    return set(re.findall(r"\$labels\.(\w+)", text)) | set(re.findall(r"\{\{(\w+)\}\}", text))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_alerts_say_what_happened_and_the_cure(exported: dict[str, set[str]], rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["for"]
    used = labels_in_text(rule["annotations"]["summary"] + rule["annotations"]["description"])
    known = set.union(*(exported[name] for name, _ in SELECTOR.findall(rule["expr"])))
    assert used <= known


def test_legends_name_labels_that_exist(exported: dict[str, set[str]]) -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            known = set.union(*(exported[name] for name, _ in SELECTOR.findall(target["expr"])))
            assert labels_in_text(target["legendFormat"]) <= known, panel["title"]


def test_the_dashboard_is_whole() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert all(panel["description"] and panel["title"] for panel in PANELS)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS]
    assert len(set(places)) == len(places)
    assert {each["name"] for each in DASHBOARD["templating"]["list"]} == {"datasource", "account"}
    assert all(target["datasource"]["uid"] == "${datasource}" for panel in PANELS
               for target in panel["targets"])


def test_every_metric_that_ages_has_an_alert_or_a_panel() -> None:
    """A metric that nothing shows is one that nothing checks."""
    shown = {name.removesuffix("_total") for _, expression in EXPRESSIONS
             for name, _ in SELECTOR.findall(expression)}
    unused = {each.name for each in METRICS} - {name.removeprefix(PREFIX) for name in shown}
    assert unused == {"read_seconds", "syncing", "last_run_started_timestamp_seconds", "last_run_records",
                      "last_run_finished_timestamp_seconds", "verification_timestamp_seconds",
                      "verification_records"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: apt install prometheus)")
def test_promtool_accepts_rules_and_exposition(monitor: str) -> None:
    text = requests.get(f"{monitor}/metrics", timeout=60).text
    for words, given in ((["check", "rules", str(RULES_FILE)], ""), (["check", "metrics"], text)):
        done = subprocess.run(["promtool", *words], input=given, capture_output=True, encoding="utf-8",
                              check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def prometheus(monitor: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus that scrapes the exporter and evaluates the rules, each second."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus (Debian: apt install prometheus)")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    target = {"targets": [monitor.removeprefix("http://")]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [str(RULES_FILE)],
        "scrape_configs": [{"job_name": "amocrm-mirror", "static_configs": [target]}]}), encoding="utf-8")
    with subprocess.Popen(["prometheus", f"--config.file={folder / 'prometheus.yml'}",
                           f"--storage.tsdb.path={folder / 'data'}",
                           f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: is_listening(f"http://127.0.0.1:{port}"))
            yield f"http://127.0.0.1:{port}/api/v1"
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_real_prometheus_evaluates_every_rule_and_panel(prometheus: str) -> None:
    def query(expression: str) -> dict[str, Any]:
        found: dict[str, Any] = requests.get(f"{prometheus}/query", params={"query": expression},
                                             timeout=30).json()
        return found
    wait_until(lambda: query(f"count({PREFIX}read_seconds)")["data"]["result"] != [])
    for title, expression in EXPRESSIONS:
        written = expression.replace("$__rate_interval", "1m").replace("$account", ".*")
        assert query(written)["status"] == "success", (title, written)

    def healths() -> list[str]:
        [group] = requests.get(f"{prometheus}/rules", timeout=30).json()["data"]["groups"]
        return [rule["health"] for rule in group["rules"]]
    wait_until(lambda: "unknown" not in healths())
    assert healths() == ["ok"] * len(RULES)
    shown = {panel["title"] for panel in PANELS for target in panel["targets"]
             if query(target["expr"].replace("$__rate_interval", "1m").replace("$account", ".*"))[
                 "data"]["result"]}
    assert len(shown) > len(PANELS) // 2, "panels over a mirrored account show something"
