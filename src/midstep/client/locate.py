"""Which fleet: the state folder says where it is and holds its token."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from midstep.client.errors import NoFleet, NotAllowed


@dataclass(frozen=True, slots=True)
class Address:
    """Where a fleet answers."""

    url: str
    token: str
    fleet: str = ""


def default_state() -> Path:
    """MIDSTEP_STATE, else /var/lib/midstep/fleet for root (beside Midstep's own CRIU, which nodes must see),
    else ~/.local/state/midstep."""
    named = os.environ.get("MIDSTEP_STATE")
    if named:
        return Path(named).expanduser()
    if os.geteuid() == 0:
        return Path("/var/lib/midstep/fleet")
    return Path.home() / ".local" / "state" / "midstep"


def locate(state: Path | None = None) -> Address:
    """MIDSTEP_URL and MIDSTEP_TOKEN, else what the state folder says. NoFleet: it says nothing. NotAllowed:
    it is not yours to read."""
    url = os.environ.get("MIDSTEP_URL")
    if url and state is None:
        return Address(url.rstrip("/"), os.environ.get("MIDSTEP_TOKEN", ""))
    folder = (state or default_state()).expanduser()
    try:
        content = json.loads((folder / "client.json").read_text())
        address = Address(content["url"], content["token"], content["fleet"])
    except PermissionError:
        raise NotAllowed(
            f"the fleet in {folder} belongs to another user", "ask them, or use --state"
        ) from None
    except (OSError, ValueError, KeyError):
        hint = "`midstep up` starts one here; --state or MIDSTEP_STATE names another folder"
        raise NoFleet(f"there is no fleet in {folder}", hint) from None
    if content.get("local") and not _is_ours(address.url):
        raise NoFleet(f"the fleet in {folder} is not running", "`midstep up` starts it")
    return address


def _is_ours(url: str) -> bool:
    """The machine has the address now. If not, the request and its token would go to whoever has it
    elsewhere."""
    host = urlsplit(url).hostname or ""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True
