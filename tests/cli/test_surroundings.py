"""The machine as people have it: locales, streams that are closed or full, files of settings in other
encodings, a user without a name, a checkout that was moved. Each is one sentence, or works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import COMMAND, REPOSITORY, CliInstallation

EIGHT_BIT = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""Keeps Python from switching to UTF-8 by itself in the locale C."""
PRIVILEGED = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"),
                                reason="takes root and setpriv to become another user")
SECRET = "hidden-word"


def shell(person: CliInstallation, redirections: str, *words: str, **more: str) -> tuple[int, str, str]:
    """Runs a command in a shell with redirections; returns its exit code and both outputs, as bytes that were
    decoded leniently."""
    done = subprocess.run(["/bin/bash", "-c", f'"$@" {redirections}', "sh", *COMMAND, *words],
                          cwd=person.folder, env=person.process_environment(more), capture_output=True,
                          check=False, timeout=300)
    out, error = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    assert "Traceback" not in out + error and "Exception ignored" not in error, error
    return done.returncode, out, error


# Locales


@pytest.mark.parametrize("more", [{"LC_ALL": "C", **EIGHT_BIT}, {"LC_ALL": "POSIX", **EIGHT_BIT},
                                  {"PYTHONIOENCODING": "koi8-r", **EIGHT_BIT},
                                  {"PYTHONIOENCODING": "latin-1:strict"}],
                         ids=["C", "POSIX", "KOI8-R", "Latin-1"])
def test_any_locale_migrates_and_shows_what_it_can(more: dict[str, str], empty_database: str,
                                                   tmp_path: Path) -> None:
    person = CliInstallation(tmp_path, empty_database, AMOCRM_ACCESS_TOKEN=SECRET,
                             AMOCRM_BASE_URL="http://127.0.0.1:1")
    code, out, error = shell(person, "", "migrate", **more)
    assert (code, "account: " in out) == (0, True), error
    code, out, _ = shell(person, "", "grants", "--role", "роль", **more)
    assert code in (0, 2)
    code, _, error = shell(person, "", "sync", "--only", "сделки", **more)
    assert code == 2 and "there is no entity " in error


def test_alembic_ini_is_ascii() -> None:
    """Alembic reads it in the encoding of the locale."""
    assert (REPOSITORY / "alembic.ini").read_bytes().isascii()
    assert (REPOSITORY / "workspace.yaml").read_bytes().isascii()


# Streams


@pytest.mark.parametrize("words", [("postgres", "status"), ("--help",), ("--version",)], ids=" ".join)
def test_a_full_device_is_one_sentence(words: tuple[str, ...], tmp_path: Path) -> None:
    code, _, error = shell(CliInstallation(tmp_path), ">/dev/full", *words)
    assert code == 1
    assert error.splitlines() == ["amocrm-mirror: the output could not be written (No space left on device): "
                                  "make room there, or send it to another file, and run the command again"]


def test_a_full_device_for_messages_changes_nothing(tmp_path: Path) -> None:
    assert shell(CliInstallation(tmp_path), "2>/dev/full", "postgres", "status")[:2] == (
        0, shell(CliInstallation(tmp_path), "", "postgres", "status")[1])
    assert shell(CliInstallation(tmp_path), "2>/dev/full", "sync", "--only", "leds")[0] == 2


def test_a_closed_pipe_is_silent(tmp_path: Path) -> None:
    code, _, error = shell(CliInstallation(tmp_path), "| true; exit ${PIPESTATUS[0]}", "postgres", "status")
    assert (code, error) == (1, "")


def test_closed_streams_are_no_fault(tmp_path: Path) -> None:
    person = CliInstallation(tmp_path)
    assert shell(person, "<&- >&- 2>&-", "postgres", "status")[0] == 0
    code, _, error = shell(person, "<&-", "auth", AMOCRM_BASE_URL="http://127.0.0.1:1",
                           DATABASE_URL="postgresql://127.0.0.1:1/nowhere")
    assert code == 1 and error.startswith("amocrm-mirror: Postgres: ")


def test_a_file_to_write_that_is_a_pipe_or_a_link_stays_one(database: str, tmp_path: Path) -> None:
    """A device, too: --out /dev/null, of root, replaced the machine's /dev/null by a file."""
    person = CliInstallation(tmp_path, database)
    (tmp_path / "published").write_text("", encoding="utf-8")
    (tmp_path / "link").symlink_to("published")
    assert person.call("metrics", "--out", "link").code == 0
    assert (tmp_path / "link").is_symlink()
    assert "amocrm_mirror" in (tmp_path / "published").read_text(encoding="utf-8")
    os.mkfifo(tmp_path / "pipe")
    code, out, error = shell(person, "& timeout 60 cat pipe; wait $!", "metrics", "--out", "pipe")
    assert code == 0 and "amocrm_mirror" in out and (tmp_path / "pipe").is_fifo(), error
    code, out, _ = shell(person, "| cat; exit ${PIPESTATUS[0]}", "metrics", "--out", "/dev/stdout")
    assert code == 0 and "amocrm_mirror" in out


# .env


@pytest.mark.parametrize(("raw", "line", "expected"), [
    ("AMOCRM_SCHEMA=acme\n# Токен\n".encode("cp1251"), 2, "Windows-1251"),
    (f"AMOCRM_ACCESS_TOKEN={SECRET}\n".encode("utf-16"), 1, "UTF-16"),
    (f"AMOCRM_ACCESS_TOKEN={SECRET}\n".encode("utf-16-le"), 1, "UTF-16"),
    (f'\nAMOCRM_SCHEMA=acme\nAMOCRM_ACCESS_TOKEN="{SECRET}\n'.encode(), 3, "close the quote"),
    (f'AMOCRM_CLIENT_SECRET="{SECRET}\nAMOCRM_CLIENT_ID="a"\n'.encode(), 1, "close the quote"),
    (f"AMOCRM_SCHEMA=acme\nAMOCRM_ACCESS_TOKEN {SECRET}\n".encode(), 2, "NAME=value"),
    (b"AMOCRM_SCHEMA=acme\nAMOCRM_CLIENT_ID\n", 2, "no = behind the name")])
@pytest.mark.parametrize("words", [("doctor",), ("postgres", "status")], ids=" ".join)
def test_an_unreadable_env_file_is_refused_with_its_line(words: tuple[str, ...], raw: bytes, line: int,
                                                         expected: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(raw)
    done = CliInstallation(tmp_path).call(*words)
    assert done.code == 2 and f"{tmp_path / '.env'}, line {line}," in done.error, done.output
    assert expected in done.error and SECRET not in done.output


def test_a_byte_order_mark_hides_no_setting(tmp_path: Path) -> None:
    """Notepad writes one; it would become a part of the first name."""
    (tmp_path / ".env").write_bytes("AMOCRM_SCHEMA=Acme-1\n".encode("utf-8-sig"))
    done = CliInstallation(tmp_path).call("sync")
    assert done.code == 2 and "AMOCRM_SCHEMA 'Acme-1' is not a schema name" in done.error


def test_misspelt_settings_are_pointed_out_by_every_command(tmp_path: Path) -> None:
    lines = ("# tokens", f"AMOCRM_ACCES_TOKEN={SECRET}", "DATABSE_URL=x", "POSTGRES_USER=me", "")
    (tmp_path / ".env").write_text("\n".join(lines), encoding="utf-8")
    done = CliInstallation(tmp_path).call("postgres", "status", MIRROR_HOUSE="/x", AMOCRM_QQQ="1")
    assert done.code == 0 and SECRET not in done.output
    assert sorted(done.error.splitlines()) == [
        "amocrm-mirror: AMOCRM_ACCES_TOKEN (.env, line 2) is no setting and has no effect: did you mean "
        "AMOCRM_ACCESS_TOKEN?",
        "amocrm-mirror: AMOCRM_QQQ (the environment) is no setting and has no effect: docs/settings.md lists "
        "the settings",
        "amocrm-mirror: DATABSE_URL (.env, line 3) is no setting and has no effect: did you mean "
        "DATABASE_URL?",
        "amocrm-mirror: MIRROR_HOUSE (the environment) is no setting and has no effect: did you mean "
        "MIRROR_HOME?"]


# The user and the checkout


@PRIVILEGED
def test_a_user_without_a_name_needs_mirror_home_only(empty_database: str, tmp_path: Path) -> None:
    """As in a container with an arbitrary user id. The privilege to read is for Python's own files, which may
    belong to root."""
    become = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "--inh-caps=+dac_read_search",
              "--ambient-caps=+dac_read_search"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1",
                   "DATABASE_URL": empty_database}

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*become, sys.executable, "-m", "pipelines.cli", *words], cwd="/", text=True,
                              encoding="utf-8", env=environment | more, capture_output=True, check=False)

    refused = run("migrate")
    assert refused.returncode == 2 and "set MIRROR_HOME" in refused.stderr, refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 12345, 12345)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    done = run("migrate", MIRROR_HOME=str(home))
    assert (done.returncode, done.stderr) == (0, "")


MADE_FROM = ("Makefile", "pyproject.toml", "requirements/development.txt")
"""What `make setup` reads."""


def test_make_makes_a_moved_environment_anew(tmp_path: Path) -> None:
    before, after = tmp_path / "a b", tmp_path / "c d"
    for name in MADE_FROM:
        (before / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, before / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(before / ".venv")], check=True)
    (before / ".venv" / ".ready").touch()

    def planned(folder: Path) -> str:
        return subprocess.run(["make", "-n", "setup"], cwd=folder, capture_output=True, text=True,
                              encoding="utf-8", check=True).stdout

    assert "venv" not in planned(before)
    before.rename(after)
    assert "-m venv --clear .venv" in planned(after)
    link = tmp_path / "worktree"
    for name in MADE_FROM:
        (link / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(after / name, link / name)
    after.rename(before)
    (link / ".venv").symlink_to(before / ".venv")
    assert "--clear" not in planned(link), "a linked environment is in its place"
