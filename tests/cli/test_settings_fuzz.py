"""Whatever stands in `.env`, AMOCRM_BASE_URL and the options: one sentence or a result, no traceback, and no
piece of a secret. FUZZ_DRAWS sets the number of draws; `make test-all` makes 5,000."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.config.settings import Settings
from tests.support.commands import CliInstallation, CommandResult

DRAWS = int(os.environ.get("FUZZ_DRAWS", "40"))
SECRET = "Zq7hushword9"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
QUOTES = st.sampled_from(["", "'", '"', "`", "${", "\\", "\r", "\0", " #", "\ufeff", "\n"])
VALUE = st.builds(lambda before, text, after: f"{before}{text}{after}", QUOTES, TEXT, QUOTES)
SECRETS = ("AMOCRM_ACCESS_TOKEN", "AMOCRM_REFRESH_TOKEN", "AMOCRM_CLIENT_SECRET", "MIRROR_KEY")
NAMES = st.one_of(st.sampled_from([name.upper() for name in Settings.model_fields
                                   if name not in ("mirror_home", "dagster_home", "database_url")]),
                  st.sampled_from(["AMOCRM_ACCES_TOKEN", "MIRROR_", "amocrm_schema", "export X", ""]), TEXT)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "cp1251", "utf-16", "utf-16-le", "koi8-r"])
COMMANDS = st.sampled_from([("postgres", "status"), ("sync", "--only"), ("verify", "--only"),
                            ("status", "--account"), ("sync", "--tier"), ("grants", "--role"),
                            ("forget", "--contact"), ("keys",),
                            ("postgres",), ("accounts", "add", "acme"), ("accounts", "remove", "--yes"),
                            ("prune", "--days"), ("webhooks", "subscribe", "--url")])
quick = settings(max_examples=DRAWS, deadline=None, database=None,
                 suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture
def person(tmp_path: Path) -> CliInstallation:
    """An installation whose database refuses at once."""
    return CliInstallation(tmp_path, "postgresql://me@127.0.0.1:1/base?connect_timeout=1")


def check(done: CommandResult) -> None:
    assert done.code in (0, 1, 2), done.output
    for word in ("Traceback", "Error:", "Errno", SECRET[:6], SECRET[-6:], "unexpected error"):
        assert word not in done.output.replace("Error: ", "", 0), done.output


@quick
@given(st.lists(st.tuples(NAMES, VALUE), max_size=6), st.sampled_from(SECRETS), VALUE, ENCODINGS)
def test_any_env_file(person: CliInstallation, lines: list[tuple[str, str]], secret: str, around: str,
                      encoding: str) -> None:
    text = "\n".join([*(f"{name}={value}" for name, value in lines), f"{secret}={around}{SECRET}{around}"])
    (person.folder / ".env").write_bytes(text.encode(encoding, errors="replace"))
    check(person.call("postgres", "status"))


@quick
@given(st.one_of(
    VALUE, st.builds(lambda a, b, c: f"https://{a}:{SECRET}@{b}.amocrm.ru{c}", TEXT, TEXT, TEXT),
    st.builds(lambda a, b: f"http://127.0.0.1:{a}{b}", TEXT, TEXT)).filter(lambda text: "\0" not in text))
def test_any_address(person: CliInstallation, address: str) -> None:
    check(person.call("status", AMOCRM_BASE_URL=address))


@quick
@given(COMMANDS, VALUE.filter(lambda text: "\0" not in text))
def test_any_option(person: CliInstallation, words: tuple[str, ...], value: str) -> None:
    check(person.call(*words, value, AMOCRM_ACCESS_TOKEN=SECRET, AMOCRM_BASE_URL="http://127.0.0.1:1"))
