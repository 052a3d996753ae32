"""Prints the release notes of a tag: its section of CHANGELOG.md. Refuses a tag that is not pyproject.toml's
version, and a section that is still unreleased.

    python .ci/release_notes.py v0.1.0
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def release_notes(tag: str, root: Path = ROOT) -> str:
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if tag != f"v{version}":
        sys.exit(f"The tag is {tag}, and the version in pyproject.toml is {version}: tag v{version}.")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", changelog, flags=re.M)[1:]
    found = [section for section in sections
             if re.match(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n", section)]
    if len(found) != 1:
        sys.exit(f"CHANGELOG.md has no heading '## [{version}] - YYYY-MM-DD': write the day of the release.")
    return found[0].partition("\n")[2].strip() + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Give the tag: python .ci/release_notes.py v0.1.0")
    sys.stdout.write(release_notes(sys.argv[1]))
