"""Which settings are accepted, and the message for each that is not."""

import math
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet, MultiFernet
from psycopg.conninfo import conninfo_to_dict

from pipelines.amocrm.hosts import validate_base_url
from pipelines.config.database_urls import normalise_database_url
from pipelines.config.settings import Settings, SettingsError, load_settings, validate_schema_name


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_no_setting_is_required() -> None:
    settings = Settings()
    assert settings.amocrm_base_url is None and settings.database_url is None
    assert settings.amocrm_requests_per_second == 6.5 and settings.amocrm_concurrency == 6
    assert settings.amocrm_schema == "amocrm" and settings.mirror_home.is_absolute()


def test_environment_beats_dotenv_and_empty_means_absent(tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text(
        "AMOCRM_BASE_URL=acme\nAMOCRM_SCHEMA=from_file\nAMOCRM_ACCESS_TOKEN=\nOTHER=1\n", encoding="utf-8")
    monkeypatch.setenv("AMOCRM_SCHEMA", "from_environment")
    settings = load_settings()
    assert settings.amocrm_base_url == "https://acme.amocrm.ru"
    assert settings.amocrm_schema == "from_environment"
    assert settings.amocrm_access_token is None


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://acme.amocrm.ru", "https://acme.amocrm.ru"),
        (" https://ACME.amocrm.ru/ ", "https://acme.amocrm.ru"),
        ("https://acme-2.amocrm.com", "https://acme-2.amocrm.com"),
        ("https://acme.kommo.com", "https://acme.kommo.com"),
        ("acme", "https://acme.amocrm.ru"),
        ("acme.amocrm.ru", "https://acme.amocrm.ru"),
        ("acme.kommo.com/", "https://acme.kommo.com"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.9.9.9:1/", "http://127.9.9.9:1"),
        ("https://localhost", "https://localhost"),
        ("localhost:8000", "http://localhost:8000"),
        ("localhost", "http://localhost"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_valid_addresses_are_accepted(given: str, used: str) -> None:
    assert validate_base_url(given) == used
    assert validate_base_url(used) == used


@pytest.mark.parametrize(
    "given",
    [
        "",
        "http://acme.amocrm.ru",
        "https://www.amocrm.ru",
        "www.kommo.com",
        "https://amocrm.ru",
        "https://acme.amocrm.ru:8443",
        "https://acme.amocrm.ru:443/",
        "https://acme.amocrm.ru/leads/list",
        "https://acme.amocrm.ru?x=1",
        "https://user:secret@acme.amocrm.ru",
        "http://127.0.0.1@evil.example",
        "http://user:secret@127.0.0.1",
        "https://acme.amocrm.ru.evil.example",
        "https://evil.example/acme.amocrm.ru",
        "https://evilamocrm.ru",
        "https://a.b.amocrm.ru",
        "https://-acme.amocrm.ru",
        "https://acme.amocrm.ru\\@evil.example",
        "https://acme.amocrm.ru\n.evil.example",
        "https://аcme.amocrm.ru",
        "http://localhost.evil.example",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "https://127.0.0.1:99999",
        "http://[::1",
        "https://",
    ],
)
def test_invalid_addresses_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match="AMOCRM_BASE_URL") as refusal:
        validate_base_url(given)
    message = str(refusal.value)
    assert message.endswith((".", ")."))
    assert "secret" not in message


@pytest.mark.parametrize("name", ["amocrm", "_x", "amocrm_2", "a" * 59])
def test_valid_schema_names_are_accepted(name: str) -> None:
    assert validate_schema_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "Acme", "1x", "a-b", "a b", "схема", "x\n", 'x"; --', "a" * 60]
    + ["mirror", "public", "information_schema", "pg_temp", "pg_catalog"]
    + ["amocrm_all", "amocrm_bi"],
)
def test_invalid_schema_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="AMOCRM_SCHEMA"):
        validate_schema_name(name)


@pytest.mark.parametrize(
    ("rate", "base_url", "used"),
    [
        ("7", "acme", 7.0),
        ("0.5", "acme", 0.5),
        ("500", "http://127.0.0.1:1", 500.0),
        ("unlimited", "http://127.0.0.1:1", math.inf),
    ],
)
def test_valid_rates_are_accepted(rate: str, base_url: str, used: float) -> None:
    settings = load_settings(amocrm_requests_per_second=rate, amocrm_base_url=base_url)
    assert settings.amocrm_requests_per_second == used


@pytest.mark.parametrize("rate", ["7.01", "unlimited", "inf", "nan", "0", "-1", "fast"])
def test_invalid_rates_are_refused(rate: str) -> None:
    with pytest.raises(SettingsError, match="AMOCRM_REQUESTS_PER_SECOND"):
        load_settings(amocrm_requests_per_second=rate, amocrm_base_url="acme")


@pytest.mark.parametrize(
    "field",
    [
        {"amocrm_concurrency": "many"},
        {"amocrm_concurrency": "0"},
        {"mirror_key": "s3cret"},
        {"database_url": "mysql://u:s3cret@h/d"},
        {"amocrm_schema": "mirror"},
    ],
)
def test_a_refusal_names_the_variable_and_hides_the_value(
    field: dict[str, Any],
) -> None:
    with pytest.raises(SettingsError, match=next(iter(field)).upper()) as refusal:
        load_settings(**field)
    assert "s3cret" not in str(refusal.value) and refusal.value.__cause__ is None


def test_secrets_are_hidden() -> None:
    settings = load_settings(
        amocrm_access_token="s3cret",
        amocrm_client_secret="s3cret",
        amocrm_refresh_token="s3cret",
        database_url="postgres://u:s3cret@h/d",
    )
    assert "s3cret" not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("given", "host", "port", "database"),
    [
        ("postgres://u:p%40ss@h:5433/d", "h", 5433, "d"),
        ("postgresql+psycopg://u:p%40ss@h/d", "h", None, "d"),
        ("postgresql+psycopg2://u:p%40ss@h/d?sslmode=require", "h", None, "d"),
        ("host=h dbname=d user=u password=p@ss", "h", None, "d"),
    ],
)
def test_database_url_forms(given: str, host: str, port: int | None, database: str) -> None:
    conninfo = normalise_database_url(given)
    assert conninfo.startswith(("postgresql://", "host="))
    parts = conninfo_to_dict(conninfo)
    assert (parts["host"], parts.get("port"), parts["dbname"], parts["password"]) == (
        host, port and str(port), database, "p@ss")


@pytest.mark.parametrize(
    "given",
    ["mysql://u@h/d", "sqlite:///x", "nonsense", "http://postgresql", "/a/path"],
)
def test_other_databases_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match="DATABASE_URL"):
        normalise_database_url(given)


def test_unix_socket_and_several_hosts_reach_the_driver() -> None:
    assert conninfo_to_dict(normalise_database_url("postgresql:///d?host=/run/pg"))["host"] == "/run/pg"
    several = conninfo_to_dict(normalise_database_url(
        "postgresql://a:1,b:2/d?target_session_attrs=primary"))
    assert several["host"] == "a,b" and several["port"] == "1,2"


def test_the_key_is_created_once_and_private(tmp_path: Path) -> None:
    settings = load_settings(mirror_home=tmp_path / "home")
    keys = settings.encryption_keys()
    assert keys == settings.encryption_keys() and Fernet(keys[0])
    path = tmp_path / "home" / "mirror.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["mirror.key"]


def test_a_damaged_key_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mirror.key").write_text("half a k", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mirror\.key"):
        load_settings(mirror_home=tmp_path).encryption_keys()
    assert (tmp_path / "mirror.key").read_text(encoding="utf-8") == "half a k"


def test_several_keys_so_that_one_can_be_replaced() -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    sealed = Fernet(old).encrypt(b"token")
    settings = load_settings(mirror_key=f"{new.decode()}, {old.decode()}")
    ring = MultiFernet([Fernet(key) for key in settings.encryption_keys()])
    assert ring.decrypt(sealed) == b"token"


def test_home_follows_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Settings().mirror_home == tmp_path / "amocrm-mirror"
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    assert Settings().mirror_home == Path.home() / ".local/share/amocrm-mirror"
    monkeypatch.setattr("sys.platform", "darwin")
    assert "Library/Application Support" in str(Settings().mirror_home)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert Settings().mirror_home == Path("/var/lib/amocrm-mirror")
    monkeypatch.setenv("MIRROR_HOME", str(tmp_path / "mine"))
    assert Settings().mirror_home == tmp_path / "mine"
