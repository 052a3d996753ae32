"""The files of deploy/, the Dockerfile and the release workflow agree with the program."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml  # type: ignore[import-untyped]

from pipelines.config.settings import Settings
from pipelines.postgres.embedded.postmaster import free_port
from tests.support.commands import REPOSITORY, check_parses
from tests.support.webhooks import is_listening, wait_until

DEPLOY = REPOSITORY / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
COMPOSE = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
PAGE = (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")
PROGRAM = "/opt/amocrm-mirror/bin/amocrm-mirror"


def test_an_unknown_command_or_option_is_found() -> None:
    for words in (["synchronise"], ["sync", "--everything"], ["webhooks", "subscribe"]):
        with pytest.raises(BaseException):  # noqa: B017 - typer's own copy of click has no public name
            check_parses(words)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.name))
def test_units_name_what_exists(unit: Path) -> None:
    text = unit.read_text(encoding="utf-8")
    for line in re.findall(r"^Exec\w+=(.*)", text, re.M):
        program, *words = line.split()
        assert program == PROGRAM
        check_parses(words)
    names = {each.name for each in UNITS} | {"network-online.target", "network.target", "postgresql.service",
                                             "multi-user.target", "timers.target"}
    assert set(re.findall(r"[\w-]+\.(?:service|timer|target)", text)) <= names
    assert unit.suffix != ".timer" or unit.with_suffix(".service").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace(PROGRAM, str(shutil.which("true")))
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *tmp_path.iterdir()], check=False,
                          capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stderr.strip()) == (0, "")


class Backend(BaseHTTPRequestHandler):
    """Answers every delivery with its path."""

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.mark.skipif(shutil.which("caddy") is None, reason="no Caddy (Debian: apt install caddy)")
def test_caddy_passes_deliveries_on_and_nothing_else(tmp_path: Path) -> None:
    """Over plain HTTP: a certificate would need a public host."""
    port, backend = free_port(), ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    text = (DEPLOY / "Caddyfile").read_text(encoding="utf-8")
    (tmp_path / "Caddyfile").write_text(text.replace("\n{\n", "\n{\n\tadmin off\n", 1), encoding="utf-8")
    environment = os.environ | {"HOME": str(tmp_path), "HOOKS_HOST": f"http://127.0.0.1:{port}",
                                "RECEIVER": f"127.0.0.1:{backend.server_port}"}
    caddy = subprocess.Popen(["caddy", "run", "--adapter", "caddyfile", "--config", tmp_path / "Caddyfile"],
                             env=environment, stderr=subprocess.PIPE, encoding="utf-8")
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_listening(address))
        passed = requests.post(f"{address}/amocrm/acme/secret-of-the-path", data="a=1", timeout=10)
        assert (passed.status_code, passed.text) == (200, "/amocrm/acme/secret-of-the-path")
        for path in ("/health", "/", "/metrics", "/amocrm"):
            assert requests.post(address + path, data="a=1", timeout=10).status_code == 404
        assert requests.post(f"{address}/amocrm/acme/x", data=b"a" * 2_000_000,
                             timeout=10).status_code in (413, 502)
        backend.shutdown()
        backend.server_close()
        failed = requests.post(f"{address}/amocrm/acme/secret-of-the-path", data="a=1", timeout=10)
        assert failed.status_code == 502
    finally:
        caddy.terminate()
        log = caddy.communicate(timeout=30)[1]
    assert '"status":502' in log, "it reports the failure"
    assert "secret-of-the-path" not in log


def test_services_run_commands_and_mount_files_that_exist() -> None:
    for name, service in SERVICES.items():
        command = service.get("command", "")
        words = command if isinstance(command, list) else command.split()
        if words[:1] == ["amocrm-mirror"]:
            check_parses(words[1:])
        for volume in service.get("volumes", []):
            for variable, default in re.findall(r"\$\{(\w+):-([^}]+)\}", volume):
                volume = volume.replace(f"${{{variable}:-{default}}}", default)
            source = volume.split(":")[0]
            assert not source.startswith(".") or (DEPLOY / source).is_file(), f"{name}: {source}"
        assert set(service.get("depends_on", [])) <= set(SERVICES)


def test_services_set_settings_that_exist() -> None:
    known = {name.upper() for name in Settings.model_fields} | {
        "DAGSTER_DATABASE_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"}
    example = (DEPLOY / "mirror.env.example").read_text(encoding="utf-8")
    assert set(SERVICES["serve"]["environment"]) | set(re.findall(r"^([A-Z_]+)=", example, re.M)) <= known
    configurations = "".join((DEPLOY / name).read_text(encoding="utf-8")
                             for name in ("dagster.yaml", "dagster-celery.yaml"))
    assert set(re.findall(r"\{env: (\w+)\}", configurations)) <= set(SERVICES["serve"]["environment"])


def test_only_this_machine_reaches_the_ports_without_a_password() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert all(port.startswith("127.0.0.1:") for name, ports in published.items() if name != "caddy"
               for port in ports)


def test_the_celery_configuration_differs_by_its_launcher_only() -> None:
    usual, celery = (yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
                     for name in ("dagster.yaml", "dagster-celery.yaml"))
    assert celery.pop("run_launcher")["class"] == "CeleryRunLauncher"
    assert celery == usual


def copied_into_the_image() -> list[str]:
    """The files and folders that the Dockerfile copies from the build's context."""
    return [word for line in re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, re.M)
            for word in line.split()[:-1]]


def test_the_image_gets_what_its_dockerfile_copies() -> None:
    allowed = re.findall(r"^!(.*)", (REPOSITORY / ".dockerignore").read_text(encoding="utf-8"), re.M)
    assert sorted(allowed) == sorted(copied_into_the_image())
    assert all((REPOSITORY / name).exists() for name in allowed)


@pytest.mark.slow
def test_the_image_s_files_build_the_whole_wheel(tmp_path: Path) -> None:
    for name in copied_into_the_image():
        source, target = REPOSITORY / name, tmp_path / "src" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    [build] = re.findall(r"-m build (.*?) --outdir", DOCKERFILE)
    done = subprocess.run([sys.executable, "-m", "build", *build.split(), "--outdir", tmp_path],
                          cwd=tmp_path / "src", check=False, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(list(tmp_path.glob("*.whl"))) == 1


def test_the_page_names_commands_files_and_units_that_exist() -> None:
    lines = re.findall(r"^    (.*?)(?:  +#.*)?$", PAGE, re.M)
    for line in lines:
        for words in re.findall(r"(?:bin/|serve |^)amocrm-mirror ([a-z][^&|;]*)", line):
            check_parses(words.split())
    units = {name if name.endswith(".timer") else f"{name}.service"
             for enabled in re.findall(r"enable --now ([^`#\n]*)", PAGE) for name in enabled.split()}
    assert len(units) == 4
    assert units <= {unit.name for unit in UNITS}
    files = set(re.findall(r"\bdeploy/[\w./-]+\w", PAGE))
    assert {name for name in files if not (REPOSITORY / name).exists()} == set()


# Releases


def release_notes(folder: Path, tag: str, changelog: str) -> subprocess.CompletedProcess[str]:
    (folder / ".ci").mkdir(exist_ok=True)
    shutil.copy2(REPOSITORY / ".ci" / "release_notes.py", folder / ".ci")
    (folder / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n', encoding="utf-8")
    (folder / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    return subprocess.run([sys.executable, folder / ".ci" / "release_notes.py", tag], check=False,
                          capture_output=True, encoding="utf-8")


def test_release_notes_are_the_section_of_the_tag(tmp_path: Path) -> None:
    changelog = ("# Changelog\n\n## [1.2.0] - 2027-01-02\n\n### Added\n\n- New.\n\n"
                 "## [1.1.0] - 2026-12-01\n\n- Old.\n")
    done = release_notes(tmp_path, "v1.2.0", changelog)
    assert (done.returncode, done.stdout) == (0, "### Added\n\n- New.\n")


@pytest.mark.parametrize(("tag", "heading", "says"), [
    ("v1.3.0", "[1.2.0] - 2027-01-02", "the version in pyproject.toml is 1.2.0"),
    ("v1.2.0", "[Unreleased]: 1.2.0", "write the day of the release")])
def test_a_tag_that_is_not_ready_is_refused(tag: str, heading: str, says: str, tmp_path: Path) -> None:
    done = release_notes(tmp_path, tag, f"# Changelog\n\n## {heading}\n\n- New.\n")
    assert done.returncode == 1
    assert says in done.stderr


def test_the_release_is_off_until_it_is_switched_on() -> None:
    path = REPOSITORY / ".github" / "workflows" / "release.yml"
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    assert jobs["build"]["if"] == "vars.RELEASES == 'on'"
    assert all(name == "build" or "needs" in job for name, job in jobs.items()), "none runs without `build`"
    assert all(job.get("environment") == "release" for job in jobs.values()
               if "write" in job.get("permissions", {}).values())
