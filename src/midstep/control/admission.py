"""From a request to a job's spec: launchers unwrapped, defaults filled in, nonsense refused with what would
be right."""

from __future__ import annotations

import re
import shlex
from typing import Any, NoReturn

from midstep.control.errors import Rejected, invalid
from midstep.control.fleet import Fleet
from midstep.control.scheduling.quotas import check_project
from midstep.control.scheduling.scheduler import picture, want_of_spec
from midstep.control.sizes import check_part, sized, type_of
from midstep.control.vaults.blobs import Blobs
from midstep.model.job import CheckpointRule, JobSpec
from midstep.model.launch import Launch, LaunchError, unwrap
from midstep.model.tiers import Tier
from midstep.policy.picture import Want
from midstep.policy.place import hopeless
from midstep.policy.reasons import NoSuchDeviceType, NoSuchPlace, TooLarge
from midstep.wire.api import JobRequest

MAX_RANKS = 4096
MAX_THREADS = 1024
MAX_COMMAND_BYTES = 100_000
MAX_NAME = 100
MAX_RETRIES = 1000
LEAST_S, MAX_S = 1.0, 366 * 86400.0  # between checkpoints
LEAST_KEPT, MOST_KEPT = 2, 1000  # snapshots: should the newest be damaged, there is one before it
_ID = 2**32 - 2


def spec_of(request: JobRequest, fleet: Fleet, blobs: Blobs) -> JobSpec:
    """A spec that this fleet could run; raises Rejected, NotFound (the upload)."""
    _check_words(request)
    try:
        launch = unwrap(request.command)
    except LaunchError as error:
        raise Rejected(
            422, "bad_launcher", "the launcher's command cannot be unwrapped", str(error)
        ) from None
    ranks = request.ranks or launch.world_size
    whole, milli = sized(request.devices)
    devices = whole or ranks or 1
    ranks = ranks or devices
    check_numbers(request, ranks, devices)
    check_part(milli, ranks)
    if request.workdir_blob is not None:
        blobs.path(request.workdir_blob)
    spec = JobSpec(
        command=_command(launch),
        world_size=ranks,
        devices=devices,
        name=request.name,
        tier=request.tier or Tier.STANDARD,
        kind=request.kind,
        device_type=type_of(milli, request.device_type, fleet),
        env={**launch.environment, **request.env},
        workdir_blob=request.workdir_blob,
        threads=request.threads,
        uid=request.uid,
        gid=request.gid,
        region=request.region,
        node=request.node,
        retries=request.retries,
        checkpoints=request.checkpoints,
        milli=milli,
        **standing(request, ranks, devices),
    )
    check_possible(want_of_spec(spec), fleet)
    return spec


def standing(request: JobRequest, ranks: int, devices: int) -> dict[str, Any]:
    """How the scheduler may treat it: fields of its spec. Raises Rejected."""
    if request.project:
        check_project(request.project)
    rigid = devices > ranks or not request.elastic  # several devices a rank: their number cannot change
    least = request.min_devices if request.min_devices is not None else devices if rigid else 1
    _range("min_devices", least, devices)
    if rigid and least != devices:
        why = "each of its ranks has several" if devices > ranks else "it is not elastic"
        raise invalid("min_devices", f"the job has {devices} devices, always: {why}", "leave it out")
    return {
        "priority": request.priority,
        "project": request.project,
        "min_devices": least,
        "spot_ok": request.spot_ok,
    }


def _command(launch: Launch) -> tuple[str, ...]:
    """The command of every rank. torch.distributed.launch gives each its own --local-rank: a shell fills it
    in."""
    at = launch.local_rank_at
    if at is None:
        return launch.command
    before, after = shlex.join(launch.command[:at]), shlex.join(launch.command[at:])
    return ("/bin/sh", "-c", f'exec {before} --local-rank="$LOCAL_RANK" {after}')


def _check_words(request: JobRequest) -> None:
    if not request.command or not request.command[0].strip():
        raise invalid("command", "it is empty", 'give a program and its arguments, as ["python", "train.py"]')
    if any("\0" in word for word in request.command):
        raise invalid("command", "it holds a zero byte, which no program can be given")
    if sum(len(word) + 1 for word in request.command) > MAX_COMMAND_BYTES:
        raise invalid(
            "command", f"it is longer than {MAX_COMMAND_BYTES} bytes", "put long arguments into a file"
        )
    for name, value in request.env.items():
        if not re.fullmatch(r"[^=\0\s]+", name) or "\0" in value:
            raise invalid("env", f"{name!r} cannot be a variable", "names have no '=', blanks or zero bytes")
    if len(request.name) > MAX_NAME or not request.name.isprintable() or "/" in request.name:
        raise invalid("name", f"a name has at most {MAX_NAME} printable characters and no '/'")


def check_numbers(request: JobRequest, ranks: int, devices: int) -> None:
    """Raises Rejected: a number is out of range, or does not fit another."""
    _range("ranks", request.ranks, MAX_RANKS)
    _range("devices", devices, MAX_RANKS * 64)
    _range("threads", request.threads, MAX_THREADS)
    _range("uid", request.uid, _ID, least=0)
    _range("gid", request.gid, _ID, least=0)
    _range("retries", request.retries, MAX_RETRIES, least=0)
    _check_rule(request.checkpoints)
    if ranks > MAX_RANKS:
        raise invalid("ranks", f"{ranks} ranks; at most {MAX_RANKS} are possible")
    if devices > ranks and devices % ranks:
        detail = f"{devices} devices cannot be shared out evenly to {ranks} ranks"
        raise invalid("devices", detail, f"give a multiple of {ranks}, or at most {ranks}")


def _check_rule(rule: CheckpointRule | None) -> None:
    if rule is None:
        return
    named = (("every_s", rule.every_s), ("min_s", rule.min_s), ("max_s", rule.max_s))
    for name, value in named:
        if value is not None and not LEAST_S <= value <= MAX_S:
            raise invalid("checkpoints", f"{name} is {value:g} s; it is between {LEAST_S:g} s and a year")
    if rule.min_s is not None and rule.max_s is not None and rule.min_s > rule.max_s:
        raise invalid("checkpoints", f"min_s ({rule.min_s:g}) is larger than max_s ({rule.max_s:g})")
    if rule.keep is not None and not LEAST_KEPT <= rule.keep <= MOST_KEPT:
        raise invalid("checkpoints", f"keep is {rule.keep}; it is between {LEAST_KEPT} and {MOST_KEPT}")


def _range(name: str, value: int | None, most: int, least: int = 1) -> None:
    if value is not None and not least <= value <= most:
        raise invalid(name, f"{value} is not between {least} and {most}")


def check_possible(want: Want, fleet: Fleet) -> None:
    """Refuse what this fleet could not do even if nothing else ran; raises Rejected."""
    reason = hopeless(picture((), fleet.nodes), want)
    match reason:
        case None:
            return
        case TooLarge(total=total):
            _refuse(
                "too_large", f"the job {reason}", f"ask for at most {total} devices; ranks can share devices"
            )
        case NoSuchDeviceType():
            _refuse("no_such_device_type", f"the job {reason}", "`midstep nodes` shows the devices")
        case NoSuchPlace():
            _refuse("no_such_place", f"the job {reason}", "`midstep nodes` shows nodes and regions")
        case _:
            _refuse("impossible", f"the job {reason}", "")


def _refuse(code: str, title: str, hint: str) -> NoReturn:
    raise Rejected(422, code, title, "", hint)
