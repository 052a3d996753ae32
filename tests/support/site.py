"""The built site, and what is in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.support.commands import REPOSITORY

CONFIGURATIONS = {"en": "mkdocs.yml", "ru": "mkdocs.ru.yml"}
"""Language → file."""


def build_site(folder: Path) -> Path:
    """Builds the site strictly, as `make site` does, into a folder: the English one at its top, the Russian
    one in `ru`. Fails with what mkdocs says."""
    for language, name in CONFIGURATIONS.items():
        done = run_mkdocs(REPOSITORY / name, folder if language == "en" else folder / language)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run_mkdocs(configuration: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Builds a site as `make site` does. Not with --quiet: then --strict does not see a warning."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", configuration,
         "--site-dir", folder], cwd=REPOSITORY, check=False, capture_output=True, encoding="utf-8",
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})


def links(page: Path) -> Iterator[tuple[str, str]]:
    """The tags and addresses of what a page links to or loads."""
    for tag, address in re.findall(r'<(\w+)[^>]*? (?:href|src)="([^"]*)"', page.read_text(encoding="utf-8")):
        yield tag, unescape(address)


def local_target(page: Path, address: str) -> Path | None:
    """The file that a relative address names; None of an address elsewhere."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    return (page.parent / unquote(parts.path)).resolve() if parts.path else page
