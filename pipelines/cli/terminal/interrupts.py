"""Ctrl-C and SIGTERM: what each command says when it is interrupted, and what was kept."""

from __future__ import annotations

import sys
from collections.abc import Sequence

RESUME_NOTE = "what had landed is kept, and the next sync resumes there"
WHOLE_OR_NOT = "the change was made whole or not at all: run the command again"
ALL_ACCOUNTS_NOTE = "which accounts there are, `amocrm-mirror accounts list` shows"
EACH_FILE_WHOLE = "each file is whole, as it was or as it will be: run the command again for the rest"
NOTES = {
    "demo": f"{RESUME_NOTE}: `amocrm-mirror demo` goes on",
    "sync": RESUME_NOTE,
    "verify": "no result was stored, and rows repaired so far are kept: run `amocrm-mirror verify` again",
    "status": "nothing was changed",
    "migrate": "migrations that had finished are kept, nothing is half done: run the command again",
    "doctor": "nothing was changed; the checks that are not shown were not made",
    "history rebuild": WHOLE_OR_NOT,
    "prune": "what was deleted stays deleted: run `amocrm-mirror prune` again for the rest",
    "views": "views that were built are kept: run `amocrm-mirror views` again for the rest",
    "dictionary": "files that are not named above were not written: run the command again",
    "grants": WHOLE_OR_NOT,
    "forget": f"{WHOLE_OR_NOT}. `amocrm-mirror forget --list` shows who was erased",
    "dbt": "files that are not named above were not written: run the command again",
    "report": "the file is as it was",
    "dashboards superset": EACH_FILE_WHOLE,
    "dashboards grafana": EACH_FILE_WHOLE,
    "dashboards sql": EACH_FILE_WHOLE,
    "alerts": "alerts that were sent are remembered; the next check sends the others",
    "code-server": "Dagster's code server has ended",
    "auth": "no access was stored unless a line above says so: run `amocrm-mirror auth` again",
    "keys": f"{WHOLE_OR_NOT}. All keys are kept until `amocrm-mirror keys forget`",
    "accounts list": "nothing was changed",
    "accounts add": f"nothing of an account that was not stored is kept; {ALL_ACCOUNTS_NOTE}",
    "accounts remove": f"the account was removed whole or not at all; {ALL_ACCOUNTS_NOTE}",
    "accounts export": "no file was written",
    "accounts import": f"the account was imported whole or not at all; {ALL_ACCOUNTS_NOTE}",
    "accounts pause": ALL_ACCOUNTS_NOTE,
    "accounts resume": ALL_ACCOUNTS_NOTE,
    "postgres": "`amocrm-mirror postgres status` shows whether the server runs",
    "dev": "Dagster has ended",
    "serve": "what runs was ended; deliveries that were answered are kept",
    "metrics": "a file of --out was written whole or not at all",
    "mcp": "nothing was changed",
    "webhooks serve": "deliveries that were answered are kept",
    "webhooks drain": "records that were not read again stay queued",
    "webhooks subscribe": "`amocrm-mirror webhooks status` shows whether the webhook is there",
    "webhooks unsubscribe": "`amocrm-mirror webhooks status` shows whether the webhook is there",
    "webhooks rotate": "run `amocrm-mirror webhooks rotate` again: an old address may still be accepted",
    "webhooks status": "nothing was changed",
    "sandbox": "the sandbox has ended, its data were in memory only",
}
"""What an interrupted command has kept, by the command's name."""


def interrupted_note(words: Sequence[str] | None = None) -> str:
    """Returns the note of a command. `words`: the command line behind the program's name; None: this
    process's."""
    words = list(sys.argv[1:] if words is None else words)
    while words and words[0].startswith("--"):  # --log-format, before the command's name
        words = words[1 if "=" in words[0] else 2:]
    return NOTES.get(" ".join(words[:2])) or NOTES.get(" ".join(words[:1])) or RESUME_NOTE
