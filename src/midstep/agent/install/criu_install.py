"""CRIU 4.1 or newer from a newer release of this machine's own distribution, in a private prefix, with its
own libc.

    prefix/current -> versions/<id>          swapped by one rename: a half-done version is never used
    prefix/versions/<id>/criu                the launcher: CRIU by this version's own loader and libraries
    prefix/versions/<id>/root/               the packages' files; nothing outside of it is touched
    prefix/fetched/                          files by SHA256, removed at the end; a second try uses them

Nothing is installed into the system, no apt source is added. `midstep doctor --fix` and `make setup` end up
here.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from midstep.agent.install.apt_keys import load_keyring
from midstep.agent.install.apt_mirror import Mirror, NotFound, Release
from midstep.agent.install.apt_packages import Package, load_index, parse_version
from midstep.agent.install.apt_sources import (
    ETC_APT,
    OS_RELEASE,
    Distribution,
    find_source,
    read_distribution,
)
from midstep.agent.install.criu_errors import DoesNotRun, NoNetwork, NoRelease, NoRights, NotHere, NotTrusted
from midstep.agent.install.criu_find import (
    MINIMUM,
    CriuInfo,
    check_criu,
    private_prefix,
    read_version,
    wanted_version,
)

Progress = Callable[[str], None]
COMPONENTS = ("main", "universe")  # Ubuntu has CRIU in universe
DEBIAN_SUITES = ("stable", "trixie", "testing")  # testing: where the kernel wants more than stable has
# Ubuntu's mirrors have no "stable" name. Names come from the mirror's own listing and distro-info; these in
# case of neither.
UBUNTU_SUITES = ("resolute", "questing")
DISTRO_INFO = Path("/usr/share/distro-info/ubuntu.csv")


@dataclass(frozen=True, slots=True)
class Machine:
    """What of the machine the installation depends on; tests give another."""

    etc_apt: Path = ETC_APT
    os_release: Path = OS_RELEASE
    architecture: str = ""  # dpkg's name; asked for when empty


def install_criu(progress: Progress, prefix: Path | None = None, machine: Machine | None = None) -> CriuInfo:
    """Install (or complete) the private CRIU and make it the current one. Blocks for seconds to minutes.

    Raises a CriuInstallError; what was current before stays so.
    """
    machine = machine or Machine()
    prefix = (prefix or private_prefix()).absolute()
    distribution = read_distribution(machine.os_release)
    source = find_source(distribution, machine.etc_apt)
    keyring = load_keyring(source.signed_by, distribution.family)
    with _locked(prefix):
        mirror = Mirror(source.uri, keyring, prefix / "fetched")
        try:
            packages = _choose(mirror, distribution, machine.architecture or _architecture(), progress)
            version = _unpack_version(mirror, packages, prefix, progress)
        except NotFound as gone:
            raise NoNetwork(
                f"{gone} is in the mirror's index, but not there: it is being updated; try again later"
            ) from gone
        info = _try_out(version, progress)
        _point_to(prefix, version)
        shutil.rmtree(prefix / "fetched", ignore_errors=True)
    progress(f"CRIU {info.version_text} is {prefix}/current/criu")
    return CriuInfo(prefix / "current" / "criu", info.version, private=True)


def _choose(
    mirror: Mirror, distribution: Distribution, architecture: str, progress: Progress
) -> list[Package]:
    """CRIU and what it needs: from the first release whose CRIU suits this kernel, else the newest that works
    at all. Raises NoRelease."""
    tried: list[str] = []
    second_best: list[Package] = []
    try:
        for release, packages, criu in _offers(mirror, distribution, architecture, progress):
            tried.append(f"{release.codename} has {criu or 'none'} for {architecture}")
            if criu is None or parse_version(criu) < MINIMUM:
                continue
            if parse_version(criu) >= wanted_version():
                progress(f"CRIU {criu} from {release.codename} {release.version}: {len(packages())} packages")
                return packages()
            second_best = second_best or packages()
    except NotTrusted as untrusted:  # a release newer than this machine's archive keys
        if not second_best:
            raise
        tried.append(str(untrusted))
    found = "; ".join(tried) or "it has none of the newer releases"
    if second_best:
        progress(f"no CRIU that suits this kernel wholly ({found}): processes with network sockets stay put")
        return second_best
    wanted = ".".join(str(part) for part in MINIMUM)
    raise NoRelease(
        f"{mirror.uri} has no CRIU {wanted} or newer: {found}. Use a mirror that has newer releases, too"
    )


def _offers(
    mirror: Mirror, distribution: Distribution, architecture: str, progress: Progress
) -> Iterator[tuple[Release, Callable[[], list[Package]], str | None]]:
    """Each release, how to resolve CRIU with what it needs there, and its version of CRIU."""
    for release in _releases(mirror, distribution, progress):
        components = tuple(name for name in COMPONENTS if name in release.components)
        index = load_index(mirror, release, components, architecture)
        criu = index.find("criu")
        yield release, functools.partial(index.closure, "criu"), criu.version if criu else None


def _releases(mirror: Mirror, distribution: Distribution, progress: Progress) -> Iterator[Release]:
    """Those to be tried, newest first; each is fetched and verified when it is asked for (Ubuntu: all, to be
    sorted).
    """
    if distribution.family == "debian":
        seen: set[str] = set()
        for suite in DEBIAN_SUITES:
            release = _fetch_release(mirror, suite, progress)
            if release is not None and release.codename not in seen:
                seen.add(release.codename)
                yield release
        return
    found = [_fetch_release(mirror, suite, progress) for suite in sorted(_ubuntu_suites(mirror))]
    existing = [release for release in found if release is not None]
    yield from sorted(existing, key=lambda release: parse_version(release.version), reverse=True)


def _fetch_release(mirror: Mirror, suite: str, progress: Progress) -> Release | None:
    try:
        release = mirror.release(suite)
    except NotFound:
        return None
    progress(f"{mirror.uri}: release {release.codename} {release.version}, signature verified")
    return release


def _ubuntu_suites(mirror: Mirror) -> set[str]:
    listed: set[str] = set(re.findall(r'href="([a-z]+)/"', mirror.listing("dists/")))
    with contextlib.suppress(OSError):
        rows = [line.split(",") for line in DISTRO_INFO.read_text().splitlines()[1:]]
        listed |= {row[2] for row in rows[-6:] if len(row) > 2}
    return (listed | set(UBUNTU_SUITES)) - {"devel", "stable"}


def _unpack_version(mirror: Mirror, packages: list[Package], prefix: Path, progress: Progress) -> Path:
    """prefix/versions/<id>, complete. The id names the exact set of packages: one that is there is used as it
    is.
    """
    named = "".join(package.digest.sha256 for package in packages)
    criu = next(package for package in packages if package.name == "criu")
    version = prefix / "versions" / f"{criu.version}-{hashlib.sha256(named.encode()).hexdigest()[:12]}"
    if version.exists():
        progress(f"{version} is already there")
        return version
    part = prefix / "versions" / f".part-{os.getpid()}"
    for left in part.parent.glob(".part-*"):  # of a try that was cut off; we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    (part / "root").mkdir(parents=True)
    for number, package in enumerate(packages, 1):
        size_kib = package.digest.size_bytes // 1024
        progress(f"[{number}/{len(packages)}] {package.name} {package.version}, {size_kib} KiB")
        _unpack_package(mirror.file(package.path, package.digest), part / "root")
    _write_launcher(part, version)
    os.sync()
    os.rename(part, version)
    return version


def _unpack_package(deb: Path, root: Path) -> None:
    try:
        done = subprocess.run(["dpkg-deb", "-x", str(deb), str(root)], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise NotHere("dpkg-deb is missing: apt-get install dpkg") from error
    if done.returncode:
        raise NoRights(f"unpacking into {root} failed (is the disk full?): {done.stderr.strip()}")


def _write_launcher(part: Path, final: Path) -> None:
    """Started by its path; the system's loader and libraries play no part."""
    root = part / "root"
    loader = _one(root, "ld-linux*.so.*")
    binary = _one(root, "criu", "sbin")
    folders = {_one(root, "libc.so.6").parent, *(path.parent for path in root.rglob("libgnutls.so.*"))}
    search = ":".join(sorted(str(final / folder.relative_to(part)) for folder in folders))
    words = [final / loader.relative_to(part), "--library-path", search, final / binary.relative_to(part)]
    launcher = part / "criu"
    launcher.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in words) + ' "$@"\n')
    launcher.chmod(0o755)


def _one(root: Path, pattern: str, folder: str = "") -> Path:
    found = sorted(path for path in root.rglob(pattern) if folder in path.parts or not folder)
    if not found:
        raise NoRelease(f"the packages hold no {pattern}: their layout is unknown to this version of Midstep")
    return found[0]


def _try_out(version: Path, progress: Progress) -> CriuInfo:
    launcher = version / "criu"
    number = read_version(launcher)
    if number is None:
        shutil.rmtree(version, ignore_errors=True)
        raise DoesNotRun(f"{launcher} --version failed; it was removed again")
    complaint = check_criu(launcher)
    if complaint:
        raise DoesNotRun(
            f"`{launcher} check` (kept, not made current): {complaint}; "
            "the kernel or this process's rights lack something"
        )
    progress("criu check: looks good")
    return CriuInfo(launcher, number, private=True)


def _point_to(prefix: Path, version: Path) -> None:
    """Make it current, remove the others. A CRIU that runs right now keeps its open files."""
    fresh = prefix / ".current.new"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(version.relative_to(prefix))
    os.replace(fresh, prefix / "current")
    for other in (prefix / "versions").iterdir():
        if other != version:
            shutil.rmtree(other, ignore_errors=True)


@contextlib.contextmanager
def _locked(prefix: Path) -> Generator[None]:
    """One installation at a time for a prefix; the second waits, then finds the work done."""
    try:
        prefix.mkdir(parents=True, exist_ok=True)
        file = (prefix / ".lock").open("w")
    except OSError as error:
        raise NoRights(
            f"{prefix} cannot be written ({error}): run it as root, or set MIDSTEP_CRIU_PREFIX"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _architecture() -> str:
    try:
        done = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotHere(f"dpkg does not say this machine's architecture: {error}") from error
    return done.stdout.strip()
