"""A small signed package repository in a folder, made with the real tools (dpkg-deb, gpg)."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

# Stands where the dynamic loader does. It is handed `--library-path P CRIU words...` and answers for CRIU.
LOADER = """#!/bin/sh
shift 3
case "$1" in
    --version) echo "Version: {version}" ;;
    check) echo "Warn  (criu/kerndat.c:1): Can't load /run/criu.kdat" >&2; echo "Looks good."; exit {check} ;;
esac
"""


class Keys:
    """One gpg key, in a folder of its own."""

    def __init__(self, home: Path, name: str) -> None:
        home.mkdir(mode=0o700)
        self.home = home
        self.public = home / "public.gpg"
        self.gpg("--quick-generate-key", f"{name} <{name}@example.org>", "ed25519", "sign", "never")
        self.gpg("--output", str(self.public), "--export")
        listed = self.gpg("--list-keys", "--with-colons").splitlines()
        self.key = next(line.split(":")[4] for line in listed if line.startswith("pub:"))

    def gpg(self, *words: str) -> str:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--yes", "--passphrase", "", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def armoured(self) -> str:
        return self.gpg("--armor", "--export")

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False)


@dataclass
class Repository:
    """Add packages, then publish a suite; the folder's file:// address is the mirror."""

    folder: Path
    keys: Keys
    stanzas: dict[str, list[str]] = field(default_factory=dict[str, list[str]])  # by component

    @property
    def uri(self) -> str:
        return f"file://{self.folder}"

    def add_criu(self, version: str = "4.2-1", check: int = 0, component: str = "main") -> None:
        """CRIU with two packages that it needs: one named as an alternative, one by a virtual name."""
        loader = LOADER.format(version=version.split("-")[0], check=check)
        depends = "libc6 (>= 2.38), libabsent1 | libnet1 (>= 1.1), libvirtual"
        self.add("criu", version, {"usr/sbin/criu": "not used"}, depends, component)
        libc = {
            "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": loader,
            "usr/lib/x86_64-linux-gnu/libc.so.6": "",
        }
        self.add("libc6", "2.41-1", libc, "libnet1")  # a circle, as libc6 and libgcc-s1 are
        self.add("libnet1", "1.3", {"usr/lib/x86_64-linux-gnu/libnet.so.1": ""}, "libc6")
        self.add(
            "libreal2", "2.0", {"usr/lib/x86_64-linux-gnu/libreal.so.2": ""}, provides="libvirtual (= 1)"
        )
        self.add("unwanted", "1.0", {"usr/bin/unwanted": ""})

    def add(
        self,
        name: str,
        version: str,
        files: dict[str, str],
        depends: str = "",
        component: str = "main",
        provides: str = "",
    ) -> None:
        deb = self._build(name, version, files)
        content = deb.read_bytes()
        lines = [
            f"Package: {name}",
            f"Version: {version}",
            *([f"Depends: {depends}"] if depends else []),
            *([f"Provides: {provides}"] if provides else []),
            "Description: made for a test",
            " with a second line",
            f"Filename: {deb.relative_to(self.folder)}",
            f"Size: {len(content)}",
            f"SHA256: {hashlib.sha256(content).hexdigest()}",
        ]
        self.stanzas.setdefault(component, []).append("\n".join(lines) + "\n")

    def _build(self, name: str, version: str, files: dict[str, str]) -> Path:
        tree = self.folder / "trees" / f"{name}-{version}"
        (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: T <t@example.org>\n"
        (tree / "DEBIAN" / "control").write_text(control + "Description: made for a test\n")
        for path, content in files.items():
            target = tree / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
            target.chmod(0o755)
        deb = self.folder / "pool" / f"{name}_{version}.deb"
        deb.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["dpkg-deb", "-b", "--root-owner-group", str(tree), str(deb)], check=True, capture_output=True
        )
        return deb

    def publish(self, suite: str, codename: str, version: str, *, detached: bool = False) -> Path:
        """Write the indices and the signed Release file; where that lies."""
        dists = self.folder / "dists" / suite
        lines: list[str] = []
        for component, stanzas in self.stanzas.items():
            text = "\n".join(stanzas).encode()
            for suffix, content in ((".xz", lzma.compress(text)), (".gz", gzip.compress(text))):
                path = dists / component / "binary-amd64" / f"Packages{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                digest = hashlib.sha256(content).hexdigest()
                lines.append(f" {digest} {len(content)} {path.relative_to(dists)}")
        components = " ".join(self.stanzas)
        head = f"Suite: {suite}\nCodename: {codename}\nVersion: {version}\nComponents: {components}\n"
        release = dists / "Release"
        release.write_text(head + "SHA256:\n" + "\n".join(lines) + "\n")
        if detached:
            self.keys.gpg("--output", f"{release}.gpg", "--detach-sign", str(release))
            return release
        self.keys.gpg("--output", str(dists / "InRelease"), "--clearsign", str(release))
        release.unlink()
        return dists / "InRelease"
