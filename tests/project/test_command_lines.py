"""The command lines of the pages: each is one that the program takes, in both languages alike, and each is
run by a test: here (slow), in the order of its page, or by the test that is named for it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from pipelines.cli.app import app
from pipelines.postgres.embedded.postmaster import free_port
from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.commands import REPOSITORY, CliInstallation, check_parses

DOCS = REPOSITORY / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *REPOSITORY.glob("*.md")])
CALL = re.compile(r"(?:^|[ \t/;&|(])amocrm-mirror (?=[a-z])((?:'[^']*'|[^\n#;&|<>`])*)", re.M)
"""A call in a block of code."""
BLOCK = re.compile(r"^ {4,10}(\S[^\n]*)$|^```(\w*)\n(.*?)^```", re.M | re.S)
USAGE = re.compile(r"^    .*\[(OPTIONS|ARGS)\].*\n", re.M)
"""What `--help` says of a command's form."""
HERE = ("account.md", "accounts.md", "report.md", "privacy.md", "webhooks.md", "dbt.md")
ELSEWHERE = {
    "accounts add beta beta.kommo.com --browser": "cli/test_auth_code.py",
    "alerts": "alerts/test_alerts.py",
    "alerts --test": "alerts/test_alerts.py",
    "code-server --host 0.0.0.0 --port 4000": "cli/test_module_path.py",
    "dashboards grafana --out grafana": "bi/dashboards/test_exports.py",
    "dashboards sql --out sql --for datalens": "bi/dashboards/test_exports.py",
    "dashboards sql --out sql --for metabase": "bi/dashboards/test_exports.py",
    "dashboards sql --out sql --for powerbi": "bi/dashboards/test_exports.py",
    "dashboards superset --out superset": "bi/dashboards/test_exports.py",
    "demo": "project/test_package.py",
    "dev": "orchestration/test_dev.py",
    "grants": "project/test_guides.py",
    "grants --role assistant": "assistant/conftest.py",
    "grants --role dbt": "dictionary/test_dbt_itself.py",
    "grants --role metabase --ask": "admin/test_reader_role.py",
    "mcp --check": "assistant/test_mcp.py",
    "migrate": "cli/test_commands.py",
    "postgres psql": "project/test_package.py",
    "sandbox --port 8765 --scale 1000 --seed 1": "cli/test_commands.py",
    "serve": "cli/test_serve.py",
    "start.md": "project/test_package.py",
    "views": "bi/test_builder.py"}
"""A call, or a page → the test that runs it."""
CONTACT, LINE_TO_LEAVE = "48217735", "--browser"


def blocks(page: Path) -> list[str]:
    """The lines of code of a page, without the results that stand below a `$` line."""
    found: list[str] = []
    for indented, language, fenced in BLOCK.findall(USAGE.sub("", page.read_text(encoding="utf-8"))):
        lines = [indented] if indented else fenced.splitlines() if language in ("", "bash") else []
        prompts = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        found += prompts or (lines if indented else [])
    return found


def calls(page: Path) -> list[str]:
    """The calls of amocrm-mirror in the code of a page, and in the examples of its commands."""
    text = page.read_text(encoding="utf-8")
    examples = [each for line in re.findall(r"^\*\*Example:\*\*(.*)$", text, re.M)
                for each in re.findall(r"`([^`]+)`", line)]
    return [found.strip() for line in [*blocks(page), *examples] for found in CALL.findall(line)]


@pytest.mark.parametrize("page", [page for page in PAGES if calls(page)], ids=lambda page: page.name)
def test_each_call_is_one_that_the_program_takes(page: Path) -> None:
    for call in calls(page):
        check_parses(shlex.split(call.replace("…", "x")))


def test_the_search_finds_calls() -> None:
    assert {"account.md", "deploy.md", "options.md", "CONTRIBUTING.md"} <= {
        page.name for page in PAGES if calls(page)}
    assert calls(DOCS / "account.md") == ["auth", "doctor", "sync", "sync --quiet", "sync --quiet --full"]
    assert "sync --all" in calls(DOCS / "deploy.md") and len(calls(DOCS / "options.md")) > 60


def test_what_the_text_names_exists() -> None:
    """Names of commands and of their options in the text, such as `sync --full`."""
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for page in PAGES:
        for words in re.findall(r"`amocrm-mirror ([a-z][^`]*)`", page.read_text(encoding="utf-8")):
            name, *rest = re.split(r"[\s,]+", words)
            own = [commands[name], *getattr(commands[name], "commands", {}).values()]
            known = {each for command in own for parameter in command.params
                     for each in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
            named = {each.strip("[]") for each in rest if each.startswith(("--", "[--"))}
            assert named <= known, f"{page.name}: {words}"


def test_the_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.M))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = {each for line in [*blocks(page), *re.findall(r"`(make [^`]+)`", text)]
                 for each in re.findall(r"^make ([a-z-]+)", line)}
        assert named <= targets, page


def test_both_languages_have_the_same_lines() -> None:
    for page in (DOCS / "ru").glob("*.md"):
        assert calls(page) == calls(DOCS / page.name), page


def test_each_line_is_run_by_a_test() -> None:
    for page in [page for page in PAGES if "ru" not in page.parts and page.name != "options.md"]:
        runs_elsewhere = {name: ELSEWHERE.get(page.name) or ELSEWHERE.get(name) for name in calls(page)}
        for name, test in runs_elsewhere.items():
            here = page.name in HERE or name in {each for own in HERE for each in calls(DOCS / own)}
            assert here or test, f"{page.name}: amocrm-mirror {name}"
    assert all((REPOSITORY / "tests" / test).is_file() for test in ELSEWHERE.values())


# Run as they stand


class Shell:
    """Runs lines as a person types them, with `amocrm-mirror` on the path."""

    def __init__(self, installation: CliInstallation, changes: dict[str, str]) -> None:
        self.installation, self.changes = installation, changes
        command = installation.folder / "bin" / "amocrm-mirror"
        command.parent.mkdir(exist_ok=True)
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipelines.cli "$@"\n', encoding="utf-8")
        command.chmod(0o755)

    def run(self, line: str, typed: str = "", **more: str) -> str:
        line = re.sub(r"^[\d*/, -]+ +(?=cd )", "", line)  # when cron runs it
        for old, new in self.changes.items():
            line = line.replace(old, new)
        environment = self.installation.process_environment(more)
        environment["PATH"] = f"{self.installation.folder / 'bin'}:{environment['PATH']}"
        done = subprocess.run(["bash", "-euc", line], cwd=self.installation.folder, env=environment,
                              input=typed, check=False, capture_output=True, encoding="utf-8", timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=60) as running:
        yield running


def lines_of(name: str) -> list[str]:
    return [line for line in blocks(DOCS / name)
            if CALL.search(line) and LINE_TO_LEAVE not in line]


@pytest.mark.slow
def test_an_account_of_ones_own_and_what_is_made_of_it(sandbox: SandboxProcess, database: str,
                                                       tmp_path: Path) -> None:
    installation = CliInstallation(tmp_path, database, AMOCRM_BASE_URL=sandbox.url)
    contact = str(sandbox.truth("contacts")[0]["id"])
    shell = Shell(installation, {
        "/srv/amocrm-mirror": str(tmp_path), "/srv/mirror": str(tmp_path), "/srv/reports": str(tmp_path),
        "https://hooks.example.com": f"http://127.0.0.1:{free_port()}", CONTACT: contact})
    for line in lines_of("account.md"):
        shell.run(line, typed=sandbox.admin_token)
    for line in [*(line for line in lines_of("report.md") if " serve " not in line),
                 *(line for line in lines_of("dbt.md") if " dbt " in line and "grants" not in line)]:
        shell.run(line)
    assert (tmp_path / "report.html").stat().st_size > 100_000 and (tmp_path / "sales.html").is_file()
    assert (tmp_path / "models" / "amocrm" / "sources.yml").is_file()
    subscribe, status = (line for line in lines_of("webhooks.md") if " webhooks " in line)
    shell.run(subscribe)
    assert "deliveries" in shell.run(status)
    [forget] = lines_of("privacy.md")
    assert contact in shell.run(forget, typed="y\n")
    assert contact in installation.call("forget", "--list").out


@pytest.mark.slow
def test_many_accounts_and_one_that_moves(sandbox: SandboxProcess, database: str, postgres_server: str,
                                          template_database: str, tmp_path: Path) -> None:
    """The account goes to another installation, which gets the first one's key for the import."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here = Shell(CliInstallation(tmp_path / "here", database), {"https://acme.amocrm.ru": sandbox.url})
    (tmp_path / "here" / "token.txt").write_text(sandbox.admin_token, encoding="utf-8")
    add, everything, listed, pause, export, take, verify, remove = lines_of("accounts.md")
    here.run(add)
    here.run(everything)
    assert "synced" in here.run(listed)
    here.run(pause)
    here.run(export)
    with temporary_database(postgres_server, template_database) as other:
        there = Shell(CliInstallation(tmp_path / "there", other), {"acme.zip": "../here/acme.zip"})
        there.run("amocrm-mirror migrate && amocrm-mirror keys rotate")
        keys = ",".join((tmp_path / each / "home" / "mirror.key").read_text(encoding="ascii").split()[0]
                        for each in ("there", "here"))
        there.run(take, MIRROR_KEY=keys)
        there.run("amocrm-mirror accounts resume acme")
        assert "different" not in there.run(verify)
    here.run(remove, typed="y\n")
    assert "acme" not in here.run(listed)


@pytest.mark.slow
def test_the_sandbox_answers_as_its_page_shows(tmp_path: Path) -> None:
    [start, *more] = blocks(DOCS / "sandbox.md")
    text = (DOCS / "sandbox.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\$ (.+)\n(.+)$", text, re.M))
    port = str(free_port())
    process = CliInstallation(tmp_path).start(*shlex.split(start.replace("8765", port))[1:])
    try:
        assert process.stdout and "listening" in process.stdout.readline()
        curls = [line for line in more if line.startswith("curl ")]
        assert len(curls) == 8 and set(shown) <= set(curls)
        for line in curls:
            done = subprocess.run(["bash", "-euc", line.replace("8765", port)], check=True,
                                  capture_output=True, encoding="utf-8")
            json.loads(done.stdout)
            assert line not in shown or done.stdout.strip() == shown[line], line
    finally:
        process.terminate()
        process.communicate(timeout=60)
