"""Which mirror and keys apt uses on this machine: both formats of its source lists, read, never written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from midstep.agent.install.criu_errors import NotHere

ETC_APT = Path("/etc/apt")
OS_RELEASE = Path("/etc/os-release")


@dataclass(frozen=True, slots=True)
class Distribution:
    family: str  # "debian" or "ubuntu"
    codename: str  # "bookworm"
    title: str  # "Debian GNU/Linux 12 (bookworm)"


@dataclass(frozen=True, slots=True)
class AptSource:
    uri: str  # no slash at the end
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""  # as written: paths, or an armoured key


def read_distribution(path: Path = OS_RELEASE) -> Distribution:
    """Raises NotHere unless this is Debian, Ubuntu or a descendant that says so."""
    try:
        fields = _read_assignments(path.read_text())
    except OSError as error:
        raise NotHere(
            f"cannot tell which distribution this is: {error}; install CRIU 4.1 or newer yourself"
        ) from error
    title = fields.get("PRETTY_NAME", fields.get("ID", "this system"))
    family = _family([fields.get("ID", ""), *fields.get("ID_LIKE", "").split()])
    if family is None:
        raise NotHere(
            f"{title} is neither Debian nor Ubuntu: install CRIU 4.1 or newer with its own package manager"
        )
    # descendants of Ubuntu (Mint) name the release they are built on
    codename = (
        fields.get("UBUNTU_CODENAME") or fields.get("DEBIAN_CODENAME") or fields.get("VERSION_CODENAME", "")
    )
    return Distribution(family, codename, title)


def find_source(distribution: Distribution, etc: Path = ETC_APT) -> AptSource:
    """The source that serves the distribution itself (its plain suite, component main). Raises NotHere."""
    every = list(read_sources(etc))
    for source in every:
        if "main" in source.components and distribution.codename in source.suites:
            return source
    # a machine that follows "stable" rather than a name
    for source in every:
        if "main" in source.components and {"stable", "testing", "unstable", "sid"} & set(source.suites):
            return source
    raise NotHere(
        f"apt has no source for {distribution.title}: none in {etc} has suite {distribution.codename!r} and "
        "component 'main'; add one, or install CRIU 4.1 or newer yourself"
    )


def read_sources(etc: Path = ETC_APT) -> Iterator[AptSource]:
    """All enabled binary sources, in the order in which apt reads them."""
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    for path in files:
        if path.suffix not in (".list", ".sources") or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        yield from parse_deb822(text) if path.suffix == ".sources" else parse_one_line(text)


def parse_one_line(text: str) -> Iterator[AptSource]:
    """`deb [arch=amd64 signed-by=/k.gpg] http://mirror suite component ...`, one a line."""
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<rest>[^#]+)", line)
        if not match:
            continue
        words = match["rest"].split()
        options = dict(word.split("=", 1) for word in (match["options"] or "").split() if "=" in word)
        if len(words) >= 3:
            uri = _resolve(words[0])
            yield AptSource(
                uri, (words[1],), tuple(words[2:]), options.get("signed-by", "").replace(",", " ")
            )


def parse_deb822(text: str) -> Iterator[AptSource]:
    for stanza in parse_stanzas(text):
        if "deb" not in stanza.get("types", "").split() or stanza.get("enabled", "yes").lower() in (
            "no",
            "false",
        ):
            continue
        for uri in stanza.get("uris", "").split():
            yield AptSource(
                _resolve(uri),
                tuple(stanza.get("suites", "").split()),
                tuple(stanza.get("components", "").split()),
                stanza.get("signed-by", ""),
            )


def parse_stanzas(text: str) -> Iterator[Mapping[str, str]]:
    """Paragraphs of `Field: value` with continuation lines; names in lower case."""
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for paragraph in re.split(r"\n\s*\n", plain):
        fields: dict[str, str] = {}
        last = ""
        for line in paragraph.splitlines():
            if line[:1] in (" ", "\t") and last:
                value = line[1:]
                fields[last] += "\n" + ("" if value == "." else value)
            elif ":" in line:
                name, value = line.split(":", 1)
                last = name.strip().lower()
                fields[last] = value.strip()
        if fields:
            yield fields


def _resolve(uri: str) -> str:
    """Cloud images name a file that lists mirrors; its first line counts. `ctr+http` and the like: the real
    scheme.
    """
    if uri.startswith("mirror+file:"):
        path = Path("/" + uri.removeprefix("mirror+file:").lstrip("/"))
        lines = path.read_text().split() if path.is_file() else []
        uri = next((line for line in lines if "://" in line), uri)
    return uri.rstrip("/")


def _family(names: list[str]) -> str | None:
    # a descendant of Ubuntu names both: the first counts
    return next((name for name in names if name in ("debian", "ubuntu")), None)


def _read_assignments(text: str) -> dict[str, str]:
    """shell-like NAME=value lines"""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            fields[name.strip()] = "".join(shlex.split(value))
    return fields
