"""The data → one HTML file that opens without a network. Its Content-Security-Policy forbids every request
and every script that is not its own; all texts of the account are in one block of JSON, which no text can
end."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from html import escape
from pathlib import Path
from typing import Any

from pipelines.bi.dashboards.words import WORDS

HERE = Path(__file__).parent
SCRIPTS = ("vendor/echarts.min.js", "assets/aggregate.js", "assets/texts.js", "assets/charts.js",
           "assets/report.js")
"""In the order in which they run."""
ECHARTS_VERSION = "6.1.0"
MAX_PLAIN_BYTES = 300_000
"""Data up to this size is JSON that can be read in the file; more is compressed."""
ICON = ("data:image/svg+xml,%3Csvg "
        "xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath fill='%232f6fde' "
        "d='M1 9h3v6H1zm5-5h3v11H6zm5-3h3v14h-3z'/%3E%3C/svg%3E")


def html_page(data: dict[str, Any]) -> bytes:
    """The whole file, in UTF-8."""
    language = data["language"]
    words = {name: escape(each.in_(language)) for name, each in WORDS.items()}
    scripts = [(HERE / name).read_text(encoding="utf-8") for name in SCRIPTS]
    style = (HERE / "assets" / "report.css").read_text(encoding="utf-8")
    title = words["title"].replace("{}", escape(str(data["account"])))
    return "".join((f'<!doctype html>\n<html lang="{language}"><head><meta charset="utf-8">',
                    f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">',
                    '<meta name="viewport" content="width=device-width,initial-scale=1">'
                    '<meta name="referrer" content="no-referrer"><meta name="robots" content="noindex">',
                    f'<link rel="icon" href="{ICON}"><title>{title}</title><style>{style}</style></head>\n',
                    f'<body><div id="app"><p class="wait">{words["loading"]}</p>'
                    f'<noscript><p class="wait">{words["no_script"]}</p></noscript></div>\n',
                    data_block(data | {"echarts": ECHARTS_VERSION}),
                    *(f"\n<script>{script}</script>" for script in scripts), "\n</body></html>\n")).encode(
        "utf-8", "replace")


def data_block(data: dict[str, Any]) -> str:
    """The data as a block that the browser does not run: JSON without a `<`, or, if it is long,
    compressed."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    plain = text.encode("utf-8", "replace")
    if len(plain) <= MAX_PLAIN_BYTES:
        return f'<script type="application/json" id="data">{plain.decode("utf-8")}</script>'
    packed = base64.b64encode(gzip.compress(plain, 9, mtime=0)).decode("ascii")
    return f'<script type="application/gzip" id="data">{packed}</script>'


def _policy(scripts: list[str]) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'"
                      for each in scripts)
    return (f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
            "base-uri 'none'; form-action 'none'")
