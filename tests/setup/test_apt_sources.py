"""Both formats of apt's source lists, its keys, and its indices."""

from __future__ import annotations

from pathlib import Path

import pytest

from midstep.agent.install.apt_keys import load_keyring, strip_armour
from midstep.agent.install.apt_mirror import parse_release
from midstep.agent.install.apt_packages import PackageIndex, parse_version
from midstep.agent.install.apt_sources import (
    AptSource,
    Distribution,
    find_source,
    parse_deb822,
    parse_one_line,
    read_distribution,
)
from midstep.agent.install.criu_errors import NoRelease, NotHere

BOOKWORM = Distribution("debian", "bookworm", "Debian 12")


def test_one_line_sources() -> None:
    text = """
    # deb http://old.example/debian bookworm main
    deb http://a.example/debian/ bookworm main contrib   # the mirror
    deb-src http://a.example/debian bookworm main
    deb [arch=amd64 signed-by=/k/a.gpg,/k/b.gpg] https://b.example/debian bookworm-updates main
    deb http://flat.example ./
    """
    assert list(parse_one_line(text)) == [
        AptSource("http://a.example/debian", ("bookworm",), ("main", "contrib")),
        AptSource("https://b.example/debian", ("bookworm-updates",), ("main",), "/k/a.gpg /k/b.gpg"),
    ]


def test_deb822_sources() -> None:
    text = """\
Types: deb deb-src
# a comment inside
URIs: http://a.example/debian http://b.example/debian
Suites: bookworm
  bookworm-updates
Components: main
Signed-By: /k/a.gpg

Types: deb
URIs: http://off.example
Suites: x
Components: main
Enabled: no

Types: deb-src
URIs: http://sources.example
Suites: x
Components: main
"""
    suites = ("bookworm", "bookworm-updates")
    assert list(parse_deb822(text)) == [
        AptSource("http://a.example/debian", suites, ("main",), "/k/a.gpg"),
        AptSource("http://b.example/debian", suites, ("main",), "/k/a.gpg"),
    ]


def test_the_distribution_s_own_source_is_found_among_others(tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "a-vendor.list").write_text("deb https://vendor.example/apt bookworm stable\n")
    (folder / "debian.sources").write_text(
        "Types: deb\nURIs: http://s.example/debian-security\nSuites: bookworm-security\nComponents: main\n\n"
        "Types: deb\nURIs: mirror+file:/nowhere/debian.list\nSuites: bookworm\nComponents: main\n"
    )
    (folder / "debian.sources.save").write_text(
        "Types: deb\nURIs: http://x\nSuites: bookworm\nComponents: main\n"
    )
    assert find_source(BOOKWORM, tmp_path).uri == "mirror+file:/nowhere/debian.list"


def test_a_list_of_mirrors_is_followed(tmp_path: Path) -> None:
    (tmp_path / "debian.list").write_text("https://m.example/debian/\nhttps://n.example/debian/\n")
    (tmp_path / "sources.list").write_text(f"deb mirror+file:{tmp_path}/debian.list bookworm main\n")
    assert find_source(BOOKWORM, tmp_path).uri == "https://m.example/debian"


def test_a_machine_that_follows_stable_has_a_source(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://a.example/debian stable main\n")
    assert find_source(BOOKWORM, tmp_path).suites == ("stable",)
    with pytest.raises(NotHere, match="no source for Debian 12"):
        find_source(BOOKWORM, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'ID=debian\nVERSION_CODENAME=trixie\nPRETTY_NAME="Debian 13"',
            Distribution("debian", "trixie", "Debian 13"),
        ),
        (
            'ID=mint\nID_LIKE="ubuntu debian"\nVERSION_CODENAME=a\nUBUNTU_CODENAME=noble\nPRETTY_NAME=Mint',
            Distribution("ubuntu", "noble", "Mint"),
        ),
    ],
)
def test_descendants_count_as_what_they_are_built_on(
    tmp_path: Path, text: str, expected: Distribution
) -> None:
    (tmp_path / "os-release").write_text(text)
    assert read_distribution(tmp_path / "os-release") == expected


def test_keys_are_read_with_and_without_armour(tmp_path: Path) -> None:
    block = "PGP PUBLIC KEY BLOCK-----\n"
    armoured = f"-----BEGIN {block}Version: x\n\nAQID\nBAU=\n=abcd\n-----END {block}"
    assert strip_armour(armoured.encode()) == b"\1\2\3\4\5"
    (tmp_path / "a.asc").write_text(armoured)
    (tmp_path / "b.gpg").write_bytes(b"\6")
    keyring = load_keyring(f"{tmp_path}/a.asc {tmp_path}/b.gpg", "debian")
    assert keyring.keys == b"\1\2\3\4\5\6"
    with pytest.raises(NotHere, match="debian-archive-keyring"):
        load_keyring("/nowhere/a.gpg", "debian")


def test_a_release_file_gives_hashes_by_path() -> None:
    text = "Codename: trixie\nVersion: 13.1\nComponents: main contrib\n"
    text += "MD5Sum:\n aa 1 x\nSHA256:\n bb 2 main/x\n cc 3 y\n"
    release = parse_release("stable", text)
    assert (release.codename, release.version, release.components) == ("trixie", "13.1", ("main", "contrib"))
    assert {path: digest.sha256 for path, digest in release.files.items()} == {"main/x": "bb", "y": "cc"}


def test_versions_are_compared_as_numbers() -> None:
    texts = ["3.17.1-2+deb12u2", "4.0-5", "4.1-1", "4.1.1-1~exp1", "1:4.10-1"]
    assert [parse_version(text) for text in texts] == [(3, 17, 1), (4, 0), (4, 1), (4, 1, 1), (4, 10)]
    assert parse_version("unknown") == ()


def test_a_real_package_goes_before_one_that_provides_its_name() -> None:
    index = PackageIndex()
    fields = "Version: 1\nFilename: f\nSize: 1\nSHA256: a"
    index.add(f"Package: pretender\nProvides: libx (= 1), liby\n{fields}\n")
    index.add(f"Package: libx\n{fields}\nDepends: liby:any\n")
    assert [package.name for package in index.closure("libx")] == ["libx", "pretender"]
    assert index.find("nothing") is None
    with pytest.raises(NoRelease):
        index.closure("nothing")
