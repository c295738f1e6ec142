"""The Packages index of a release: which packages there are, and what one needs to run."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from midstep.agent.install.apt_mirror import Digest, Mirror, Release
from midstep.agent.install.apt_sources import parse_stanzas
from midstep.agent.install.criu_errors import NoRelease


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    version: str
    path: str  # under the mirror
    digest: Digest
    depends: str  # Pre-Depends and Depends, as written


@dataclass(slots=True)
class PackageIndex:
    """Stanzas are kept as text and read when asked for: there are 70 000, and some thirty are needed."""

    stanzas: dict[str, str] = field(default_factory=dict[str, str])
    provided_by: dict[str, str] = field(
        default_factory=dict[str, str]
    )  # virtual name -> first package that provides it

    def add(self, text: str) -> None:
        """More packages; those already known stay."""
        for stanza in text.split("\n\n"):
            head = re.match(r"\s*Package: (\S+)", stanza)
            if not head:
                continue
            self.stanzas.setdefault(head.group(1), stanza)
            provides = re.search(r"^Provides: (.*)$", stanza, re.MULTILINE)
            for name in _names(provides.group(1)) if provides else []:
                self.provided_by.setdefault(name, head.group(1))

    def find(self, name: str) -> Package | None:
        """The package, or one that provides the name."""
        stanza = self.stanzas.get(name) or self.stanzas.get(self.provided_by.get(name, ""))
        if stanza is None:
            return None
        fields: Mapping[str, str] = next(iter(parse_stanzas(stanza)))
        digest = Digest(fields["sha256"], int(fields["size"]))
        depends = ", ".join(filter(None, [fields.get("pre-depends", ""), fields.get("depends", "")]))
        return Package(fields["package"], fields["version"], fields["filename"], digest, depends)

    def closure(self, name: str) -> list[Package]:
        """The package and all that it depends on, by name; of alternatives the first that exists.

        Versions are not compared: one release is consistent in itself. Raises NoRelease for a dependency that
        is nowhere.
        """
        found: dict[str, Package] = {}
        waiting = [[name]]
        while waiting:
            alternatives = waiting.pop()
            package = next(filter(None, map(self.find, alternatives)), None)
            if package is None:
                raise NoRelease(f"{name} needs {' or '.join(alternatives)}, which this release does not have")
            if package.name not in found:
                found[package.name] = package
                waiting += [_names(group, "|") for group in package.depends.split(",") if group.strip()]
        return [found[key] for key in sorted(found)]


def load_index(
    mirror: Mirror, release: Release, components: tuple[str, ...], architecture: str
) -> PackageIndex:
    index = PackageIndex()
    for component in components:
        for suffix in _readable_suffixes():
            path = f"{component}/binary-{architecture}/Packages{suffix}"
            if path in release.files:
                index.add(_unpack(mirror.index(release, path), suffix).decode())
                break
    return index


def parse_version(text: str) -> tuple[int, ...]:
    """The numbers of the upstream version: 1:4.1.1-1~exp1 -> (4, 1, 1)."""
    upstream = text.partition(":")[2] if ":" in text else text
    match = re.match(r"\d+(?:\.\d+)*", upstream)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _names(text: str, separator: str = ",") -> list[str]:
    """`a (>= 1), b:any [amd64]` -> a, b"""
    found = (re.match(r"\s*([a-z0-9][a-z0-9.+-]*)", part) for part in text.split(separator))
    return [match.group(1) for match in found if match]


def _readable_suffixes() -> tuple[str, ...]:
    # some builds of Python lack it
    return (".xz", ".gz", "") if find_spec("_lzma") else (".gz", "")


def _unpack(content: bytes, suffix: str) -> bytes:
    if suffix == ".xz":
        import lzma

        return lzma.decompress(content)
    return gzip.decompress(content) if suffix == ".gz" else content
