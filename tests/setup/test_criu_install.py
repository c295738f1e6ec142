"""CRIU's installation against a signed repository made here: what it takes, what it refuses, and what it
leaves behind.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from midstep.agent.install import criu_install as installer
from midstep.agent.install.criu_errors import DoesNotRun, NoNetwork, NoRelease, NoRights, NotHere, NotTrusted
from midstep.agent.install.criu_find import find_criu
from midstep.agent.install.criu_install import Machine, install_criu
from tests.setup.repository import Keys, Repository

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("gpg", "gpgv", "dpkg-deb"))),
    reason="gpg, gpgv and dpkg-deb make the repository",
)
DEBIAN = 'ID=debian\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
UBUNTU = (
    'ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\nUBUNTU_CODENAME=noble\nPRETTY_NAME="Ubuntu 24.04"\n'
)


@pytest.fixture(scope="module")
def keyrings() -> Iterator[tuple[Keys, Keys]]:
    """The archive's key, and a stranger's. Short paths: gpg's sockets lie there."""
    with TemporaryDirectory(prefix="keys-", dir="/tmp") as folder:
        archive, stranger = Keys(Path(folder, "a"), "archive"), Keys(Path(folder, "s"), "stranger")
        yield archive, stranger
        archive.close()
        stranger.close()


class Bench:
    """A machine with apt set up to use the repository, and a prefix."""

    def __init__(self, folder: Path, keys: Keys) -> None:
        self.repository = Repository(folder / "mirror", keys)
        self.prefix = folder / "prefix"
        self.etc = folder / "etc"
        (self.etc / "sources.list.d").mkdir(parents=True)
        self.os_release = folder / "os-release"
        self.said: list[str] = []
        self.write_source(f"deb [signed-by={keys.public}] {self.repository.uri} bookworm main")
        self.os_release.write_text(DEBIAN)

    def write_source(self, text: str, name: str = "a.list") -> None:
        (self.etc / "sources.list.d" / name).write_text(text + "\n")

    def install(self) -> Path:
        machine = Machine(self.etc, self.os_release, "amd64")
        return install_criu(self.said.append, self.prefix, machine).path

    def left(self) -> list[str]:
        folder = self.prefix / "versions"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def bench(tmp_path: Path, keyrings: tuple[Keys, Keys], monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(installer, "DISTRO_INFO", tmp_path / "none.csv")
    monkeypatch.setattr("midstep.agent.install.apt_mirror.TRIES", 1)
    return Bench(tmp_path, keyrings[0])


def test_it_installs_the_closure_and_nothing_else(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.repository.add_criu()
    bench.repository.publish("stable", "trixie", "13.1")
    path = bench.install()
    root = bench.prefix / "current" / "root" / "usr"
    assert sorted(file.name for file in (root / "lib/x86_64-linux-gnu").iterdir()) == [
        "ld-linux-x86-64.so.2", "libc.so.6", "libnet.so.1", "libreal.so.2",
    ]  # fmt: skip
    assert not (root / "bin").exists()
    assert "CRIU 4.2-1 from trixie 13.1: 4 packages" in bench.said
    assert not (bench.prefix / "fetched").exists()
    monkeypatch.setenv("MIDSTEP_CRIU_PREFIX", str(bench.prefix))
    monkeypatch.delenv("MIDSTEP_CRIU", raising=False)
    found = find_criu()
    assert found is not None
    assert (found.path, found.version, found.private) == (path, (4, 2), True)


def test_a_newer_one_replaces_it_and_the_same_one_is_kept(bench: Bench) -> None:
    bench.repository.add_criu("4.1.1-1")
    bench.repository.publish("stable", "trixie", "13.1")
    bench.install()
    before = bench.left()
    bench.install()
    assert bench.left() == before
    assert any("already there" in line for line in bench.said)
    bench.repository.stanzas.clear()
    bench.repository.add_criu("4.3-1")
    bench.repository.publish("stable", "forky", "14.0")
    bench.install()
    assert len(bench.left()) == 1
    assert bench.left() != before


def test_a_release_with_its_signature_beside_it_will_do(bench: Bench) -> None:
    bench.repository.add_criu()
    bench.repository.publish("stable", "trixie", "13.1", detached=True)
    assert bench.install().exists()


def test_ubuntu_takes_the_newest_series_and_universe(bench: Bench) -> None:
    bench.os_release.write_text(UBUNTU)
    bench.write_source(
        f"Types: deb\nURIs: {bench.repository.uri}\nSuites: noble noble-updates\nComponents: main universe\n"
        f"Signed-By:\n{indent(bench.repository.keys.armoured())}",
        "ubuntu.sources",
    )
    bench.repository.add_criu("4.1-1", component="universe")
    bench.repository.publish("questing", "questing", "25.10")
    bench.repository.stanzas.clear()
    bench.repository.add_criu("4.2-1", component="universe")
    bench.repository.publish("resolute", "resolute", "26.04")
    bench.install()
    assert "CRIU 4.2-1 from resolute 26.04: 4 packages" in bench.said


def test_a_changed_package_is_refused_and_the_old_version_stays(bench: Bench) -> None:
    bench.repository.add_criu("4.1.1-1")
    bench.repository.publish("stable", "trixie", "13.1")
    path = bench.install()
    before = path.resolve()
    bench.repository.stanzas.clear()
    bench.repository.add_criu("4.3-1")
    bench.repository.publish("stable", "trixie", "13.2")
    flip_a_byte(bench.repository.folder / "pool/criu_4.3-1.deb")
    with pytest.raises(NotTrusted, match=r"criu_4\.3-1\.deb is not what the signed Release file says"):
        bench.install()
    assert path.resolve() == before
    bench.repository.stanzas.clear()
    bench.repository.add_criu("4.3-1")  # repaired; what was left over is in nobody's way
    bench.repository.publish("stable", "trixie", "13.2")
    assert bench.install().resolve() != before


def test_a_changed_index_is_refused(bench: Bench) -> None:
    bench.repository.add_criu()
    bench.repository.publish("stable", "trixie", "13.1")
    for path in (bench.repository.folder / "dists/stable/main/binary-amd64").iterdir():
        flip_a_byte(path)
    with pytest.raises(NotTrusted, match="Packages"):
        bench.install()
    assert not (bench.prefix / "current").exists()


@pytest.mark.parametrize("detached", [False, True])
def test_a_changed_release_file_is_refused(bench: Bench, detached: bool) -> None:
    bench.repository.add_criu()
    release = bench.repository.publish("stable", "trixie", "13.1", detached=detached)
    release.write_text(release.read_text().replace("13.1", "13.2"))
    with pytest.raises(NotTrusted, match=rf"Release: .*{bench.repository.keys.key} does not fit the content"):
        bench.install()


def test_text_around_the_signed_part_does_not_count(bench: Bench) -> None:
    bench.repository.add_criu()
    release = bench.repository.publish("stable", "trixie", "13.1")
    release.write_text(f"Version: 99\n\n{release.read_text()}\nVersion: 99\n")
    try:
        bench.install()
    except NotTrusted:
        return  # a gpgv that refuses such a file altogether is as good
    assert "CRIU 4.2-1 from trixie 13.1: 4 packages" in bench.said


def test_a_stranger_s_signature_is_refused_by_its_name(bench: Bench, keyrings: tuple[Keys, Keys]) -> None:
    bench.repository.keys = keyrings[1]
    bench.repository.add_criu()
    bench.repository.publish("stable", "trixie", "13.1")
    with pytest.raises(NotTrusted, match=rf"InRelease is signed by {keyrings[1].key}; not a key in"):
        bench.install()


def test_an_unsigned_release_is_refused(bench: Bench) -> None:
    bench.repository.add_criu()
    release = bench.repository.publish("stable", "trixie", "13.1")
    release.write_text("Suite: stable\n")
    with pytest.raises(NotTrusted, match="no signature that counts"):
        bench.install()


def test_no_newer_release_says_what_there_is(bench: Bench) -> None:
    bench.repository.add_criu("3.17.1-2")
    bench.repository.publish("stable", "bookworm", "12.9")
    with pytest.raises(NoRelease, match=r"no CRIU 4\.1 or newer: bookworm has 3\.17\.1-2 for amd64"):
        bench.install()


def test_a_dependency_that_is_nowhere_is_named(bench: Bench) -> None:
    bench.repository.add("criu", "4.2-1", {"usr/sbin/criu": ""}, "libgone1 | libgone2")
    bench.repository.publish("stable", "trixie", "13.1")
    with pytest.raises(NoRelease, match="criu needs libgone1 or libgone2"):
        bench.install()


def test_a_try_that_was_cut_off_goes_on_with_what_it_had(bench: Bench) -> None:
    bench.repository.add_criu()
    bench.repository.publish("stable", "trixie", "13.1")
    pool = bench.repository.folder / "pool"
    (pool / "libreal2_2.0.deb").rename(pool / "away")
    with pytest.raises(NoNetwork, match=r"libreal2_2\.0\.deb is in the mirror's index, but not there"):
        bench.install()
    assert not (bench.prefix / "current").exists()
    (bench.prefix / "versions" / ".part-1").mkdir(exist_ok=True)
    (pool / "away").rename(pool / "libreal2_2.0.deb")
    (pool / "criu_4.2-1.deb").unlink()  # fetched by the first try
    assert bench.install().exists()
    assert [name for name in bench.left() if name.startswith(".")] == []


def test_no_network_is_said_so(bench: Bench) -> None:
    bench.write_source(
        f"deb [signed-by={bench.repository.keys.public}] http://127.0.0.1:9/debian bookworm main"
    )
    with pytest.raises(
        NoNetwork, match=r"http://127\.0\.0\.1:9/debian/dists/stable/InRelease cannot be fetched"
    ):
        bench.install()


def test_a_criu_that_the_kernel_does_not_suit_is_not_made_current(bench: Bench) -> None:
    bench.repository.add_criu(check=1)
    bench.repository.publish("stable", "trixie", "13.1")
    with pytest.raises(DoesNotRun, match="check"):
        bench.install()
    assert not (bench.prefix / "current").exists()


def test_a_prefix_that_cannot_be_written_is_said_so(bench: Bench) -> None:
    bench.prefix.write_text("a file is in the way")
    with pytest.raises(NoRights, match="MIDSTEP_CRIU_PREFIX"):
        bench.install()


@pytest.mark.parametrize(
    ("os_release", "message"),
    [
        ('ID=fedora\nPRETTY_NAME="Fedora 41"\n', "Fedora 41 is neither Debian nor Ubuntu"),
        (DEBIAN.replace("bookworm", "sarge"), "suite 'sarge'"),
    ],
)
def test_other_systems_are_told_what_to_do(bench: Bench, os_release: str, message: str) -> None:
    bench.os_release.write_text(os_release)
    with pytest.raises(NotHere, match=message):
        bench.install()


def indent(block: str) -> str:
    return "\n".join(f" {line}" if line.strip() else " ." for line in block.strip().splitlines())


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_testing_is_used_where_the_kernel_wants_more_than_stable_has(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installer, "wanted_version", lambda: (4, 2))
    bench.repository.add_criu("4.1.1-1")
    bench.repository.publish("stable", "trixie", "13.1")
    bench.repository.stanzas.clear()
    bench.repository.add_criu("4.2.1-1")
    bench.repository.publish("testing", "forky", "14.0")
    bench.install()
    assert any("CRIU 4.2.1-1 from forky" in line for line in bench.said)


def test_one_that_works_at_all_is_better_than_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "wanted_version", lambda: (4, 2))
    bench.repository.add_criu("4.1.1-1")
    bench.repository.publish("stable", "trixie", "13.1")
    bench.install()
    assert any("processes with network sockets stay put" in line for line in bench.said)
