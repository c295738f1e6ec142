"""Who owns a job. Every owner has a generation; a later one outranks all before it.

    owners/JOB/00000007   made with `create`: exactly one caller gets a generation

An owner takes the next generation when it starts (`claim`) and names it whenever it writes. `check` raises
Fenced when somebody has taken a later one. No clock is asked.
"""

from __future__ import annotations

import json

from midstep.env import Ids
from midstep.vault.backends.base import Backend
from midstep.vault.errors import Fenced, ObjectExists, ObjectMissing

_FOLDER = "owners"
_DIGITS = 8


def claim(backend: Backend, job_id: str, owner: str, ids: Ids) -> int:
    """Take the job from whoever has it; returns the generation. ``owner``: who we are, for people."""
    content = json.dumps({"owner": owner, "token": ids.token()}).encode()  # unique: what `create` asks for
    generation = newest(backend, job_id) + 1
    while True:
        try:
            backend.create(_name(job_id, generation), content)
        except ObjectExists:
            generation += 1
            continue
        for older in _generations(backend, job_id):
            if older < generation - 1:  # one is kept: a list that lags must not begin again at 1
                backend.delete(_name(job_id, older))
        return generation


def newest(backend: Backend, job_id: str) -> int:
    """The generation that counts; 0: nobody ever owned the job."""
    found = max(_generations(backend, job_id), default=0)
    while _is_there(backend, job_id, found + 1):  # the list may lag behind
        found += 1
    return found


def check(backend: Backend, job_id: str, generation: int) -> None:
    """Raises Fenced when a later owner has the job."""
    if (found := newest(backend, job_id)) > generation:
        raise Fenced(
            f"job {job_id} belongs to owner {found} ({owner_of(backend, job_id, found)}); owner {generation} "
            "writes nothing any more: two controllers run for one fleet, stop the older one"
        )


def owner_of(backend: Backend, job_id: str, generation: int) -> str:
    """Who has a generation, for people."""
    try:
        return str(json.loads(backend.get(_name(job_id, generation)))["owner"])
    except (ObjectMissing, ValueError, KeyError, TypeError):
        return "unknown"


def forget(backend: Backend, job_id: str) -> None:
    """The job is over and nothing of it is left."""
    for generation in _generations(backend, job_id):
        backend.delete(_name(job_id, generation))


def _generations(backend: Backend, job_id: str) -> list[int]:
    found = (info.name.rpartition("/")[2] for info in backend.list(f"{_FOLDER}/{job_id}"))
    return [int(name) for name in found if name.isdecimal()]


def _is_there(backend: Backend, job_id: str, generation: int) -> bool:
    try:
        backend.size(_name(job_id, generation))
    except ObjectMissing:
        return False
    return True


def _name(job_id: str, generation: int) -> str:
    return f"{_FOLDER}/{job_id}/{generation:0{_DIGITS}}"
