"""No tracked file, and none of the history, holds what looks like a secret. CI runs this with the suite."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from tests.support.commands import REPOSITORY

FERNET = "a key of the mirror (Fernet)"
PATTERNS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "a JSON web token": re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
    "a refresh token of amoCRM": re.compile(r"\bdef50[0-9a-f]{40,}"),
    FERNET: re.compile(r"(?<![\w+/-])[\w-]{43}=(?![\w=])"),
    "a key of AWS": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a token of GitHub": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{40,}"),
    "a token of GitLab": re.compile(r"\bglpat-[\w-]{20,}"),
    "a token of Slack": re.compile(
        r"\bxox[abeoprs]-[\w-]{20,}|hooks\.slack\.com/services/T\w{8,}/B\w{8,}/\w{20,}"),
    "a token of Telegram": re.compile(r"\b\d{8,10}:AA[\w-]{33}\b"),
    "a key of Google": re.compile(r"\bAIza[\w-]{35}"),
    "a key of an AI service": re.compile(r"\bsk-(?:ant-|proj-)?[A-Za-z0-9]{2}[\w-]{30,}"),
    "a token of a package index": re.compile(r"\bpypi-AgE[\w-]{50,}|\bnpm_[A-Za-z0-9]{36}\b"),
    "a password in an address": re.compile(
        r"\b[a-z][a-z0-9+]*://[\w.%-]+:(?P<value>[A-Za-z0-9_%~.-]{12,})@[\w.-]"),
    "a secret that is assigned": re.compile(
        r"(?i:password|passwd|secret|token|api_?key)\w*[\"']?\s*[=:]\s*[\"']?"
        r"(?P<value>(?=[\w/+-]*\d)(?=[\w/+-]*[a-z])(?=[\w/+-]*[A-Z])[\w/+-]{24,})(?![\w(.])")}
NAMES = re.compile(r"(^|/)(\.env(\.(?!example$)\w+)?|mirror\.key|postgres\.json|id_(rsa|ed25519|ecdsa)|"
                   r"\.pgpass|\.pypirc|\.netrc|.*\.(pem|p12|pfx|key|jks|dump|kdbx))$")
"""Files that hold secrets or data, whatever is in them."""


def secrets_in(text: str) -> Iterator[str]:
    """What looks like a secret, without showing it whole."""
    for what, pattern in PATTERNS.items():
        for found in pattern.finditer(text):
            if what == FERNET and is_readable(found[0]):
                continue
            yield f"{what}: {found[0][:24]}…"


def is_readable(key: str) -> bool:
    """True for the tests' own keys, which are words: a drawn one is not."""
    return all(32 <= each < 127 for each in base64.urlsafe_b64decode(key))


def git(*words: str, given: str | None = None) -> bytes:
    done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, check=False,
                          input=given.encode() if given else None)
    if done.returncode:
        pytest.skip("not a git checkout")
    return done.stdout


def tracked() -> list[str]:
    return [name for name in git("ls-files", "-z").decode().split("\0") if name]


def test_no_tracked_file_holds_a_secret() -> None:
    found = [f"{name}: {secret}" for name in tracked() if (REPOSITORY / name).is_file()
             for secret in secrets_in((REPOSITORY / name).read_text(encoding="utf-8", errors="replace"))]
    assert found == []


def test_no_tracked_file_is_one_that_holds_secrets() -> None:
    assert [name for name in tracked() if NAMES.search(name)] == []


@pytest.mark.slow
def test_the_history_holds_no_secret() -> None:
    """A secret that a later commit removed is still there for whoever clones."""
    objects = [line.split(" ", 1) for line in git("rev-list", "--objects", "--all").decode().splitlines()
               if " " in line]
    answers, place = git("cat-file", "--batch", given="\n".join(number for number, _ in objects) + "\n"), 0
    found = [name for _, name in objects if NAMES.search(name)]
    for _, name in objects:
        head, _, _ = answers[place:place + 200].partition(b"\n")
        size = int(head.split()[2])
        start = place + len(head) + 1
        if b" blob " in head:
            found += [f"{name}: {secret}" for secret in secrets_in(
                answers[start:start + size].decode(errors="replace"))]
        place = start + size + 1
    assert found == []


def example_of(what: str) -> str:
    """A text of the kind, put together here so that this file holds none."""
    body = "Ab1" * 30
    return {
        "a private key": "-----BEGIN " + "RSA PRIVATE KEY-----",
        "a JSON web token": f"ey{'J' + body[:20]}.ey{'J' + body[:30]}.{body[:20]}",
        "a refresh token of amoCRM": "def5" + "0" + "02f" * 20,
        FERNET: f"MIRROR_KEY={body[:43]}" + "=",
        "a key of AWS": "AKI" + "A" + "ABCD" * 4,
        "a token of GitHub": "gh" + "p_" + body[:36],
        "a token of GitLab": "glpa" + "t-" + body[:20],
        "a token of Slack": "xox" + "b-" + "123456789012-" + body[:20],
        "a token of Telegram": "123456789" + ":A" + "A" + body[:33],
        "a key of Google": "AIz" + "a" + body[:35],
        "a key of an AI service": "sk" + "-ant-" + body[:40],
        "a token of a package index": "pypi" + "-AgE" + body[:60],
        "a password in an address": "postgresql" + "://mirror:" + "q8Zr2LxVw9Tn4" + "@db.example.com/amocrm",
        "a secret that is assigned": "CLIENT_SECRET" + "='" + "k3JdQ8sPq1ZxVb7MnR5tYw2E" + "'"}[what]


@pytest.mark.parametrize("what", PATTERNS)
def test_each_kind_of_secret_is_found(what: str) -> None:
    found = list(secrets_in(f"# a line\n{example_of(what)}\nanother"))
    assert any(each.startswith(f"{what}: ") for each in found)
    assert example_of(what) not in " ".join(found) or len(example_of(what)) < 40, "it is not shown whole"


@pytest.mark.parametrize("name", [".env", "deploy/.env.local", "home/mirror.key", "x/server.pem", "a.dump"])
def test_each_kind_of_file_is_found(name: str) -> None:
    assert NAMES.search(name) and not NAMES.search(str(PurePosixPath(name).with_suffix(".example")))
