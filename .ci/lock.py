"""What requirements/*.txt lock: name, version, marker, hashes, and which package needs it."""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[\w,-]+\])?==(\S+?)(?: ; (.+?))? \\")
HASH = re.compile(r" {4}--hash=sha256:([0-9a-f]{64})")
VIA = re.compile(r" {4}#(?: via|  ) ([A-Za-z0-9._-]+)(?: \(.*\))?$")
PROGRAM = "amocrm-mirror"


@dataclass
class Package:
    name: str
    version: str
    marker: str = ""
    hashes: list[str] = field(default_factory=list)
    needed_by: list[str] = field(default_factory=list)


def locked(name: str) -> dict[str, Package]:
    """Package name → package, of requirements/<name>.txt."""
    found: dict[str, Package] = {}
    package = None
    for line in (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if pin := PIN.fullmatch(line):
            package = found[pin[1]] = Package(pin[1], pin[2], pin[3] or "")
        elif package and (digest := HASH.match(line)):
            package.hashes.append(digest[1])
        elif package and (via := VIA.match(line)):
            package.needed_by.append(via[1])
    return found
