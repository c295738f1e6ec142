"""Names that CRIU lends to files.

An open file may have lost the name it was opened by and still have another (a hard link). CRIU then gives
it one for the time of the snapshot, `link_remap.N` in the same folder, by which it is opened at the restore
and which is removed then. Two things are ours: ranks of one home count N alike, so each rank's names are
made its own, in the folder and in the images; and when the rank goes on where it is, nobody but us removes
them.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import cast

from midstep.agent.drivers.cell import home_seen_by
from midstep.agent.drivers.criu_images import REGULAR_NAME_TAG, borrowed_names
from midstep.agent.drivers.follow import RankProcess

_CRIUS = "link_remap"
_OURS = "link_r{rank:04x}"  # of the same length: then the images can be changed in place


def make_own(p: RankProcess, images: Path) -> None:
    """After a dump: turn the names that CRIU lent to files of this rank into names that no other rank has."""
    names = borrowed_names(images)
    if not names:
        return
    own = {name: _own(p.rank, name) for name in names}
    _note(p, list(own.values()))
    data = (images / "files.img").read_bytes()
    for name, new in own.items():
        os.rename(_seen_by(p, name), _seen_by(p, new))
        data = data.replace(_encoded(name), _encoded(new))
    (images / "files.img").write_bytes(data)


def drop(p: RankProcess, images: Path) -> None:
    """After a dump that was cut off: remove those that CRIU did not get to remove."""
    for name in borrowed_names(images):
        with contextlib.suppress(OSError):
            _seen_by(p, name).unlink()


def give_back(p: RankProcess) -> None:
    """Before a rank goes on: remove what `make_own` noted, here or where the home came from."""
    note = _note_path(p)
    with contextlib.suppress(OSError, ValueError):
        for name in cast("list[str]", json.loads(note.read_text())):
            if Path(name).name.startswith("link_r"):
                with contextlib.suppress(OSError):
                    _seen_by(p, name).unlink()
        note.unlink()


def _own(rank: int, name: str) -> str:
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.replace(_CRIUS, _OURS.format(rank=rank & 0xFFFF))}"


def _encoded(name: str) -> bytes:
    """The field as it stands in the image: tag, length, text."""
    text = os.fsencode(name)
    size = len(text)
    length = bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])
    return bytes([REGULAR_NAME_TAG]) + length + text


def _seen_by(p: RankProcess, name: str) -> Path:
    return Path(f"/proc/{p.init_pid}/root") / name.lstrip("/")


def _note_path(p: RankProcess) -> Path:
    return home_seen_by(p.init_pid) / "run" / f"lent-{p.rank}"


def _note(p: RankProcess, names: list[str]) -> None:
    fd = os.open(_note_path(p), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(names, file)
