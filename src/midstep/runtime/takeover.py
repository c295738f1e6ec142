"""Puts our process group and store behind ``torch.distributed``. Called once, right after its main module is
loaded.

Two names are exchanged. ``_new_process_group_helper`` (through which init_process_group, new_group and
everything built on them go) makes groups under a backend name of ours, and torch's own tables then say what
the script asked for. ``TCPStore`` is our store. Everything else stays torch's own code.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from datetime import timedelta
from typing import Any, ClassVar, Dict, Tuple

from .channels import the_channel
from .splice import seating
from .worlds import JOB, World, agree

OURS = "midstep"
TAKEN = frozenset({"gloo", "nccl", "mpi", "ucc", "xccl", "undefined"})


_world = World()


def take_over(c10d: Any) -> None:
    """Exchange the parts of ``torch.distributed.distributed_c10d`` that would open connections."""
    if getattr(c10d, "_midstep", False):
        return
    c10d._midstep = True
    _register_backend(c10d)
    _wrap_helper(c10d)
    _wrap_init(c10d)
    _replace_tcp_store(c10d)
    _wrap_set_timeout(c10d)
    _wrap_split_group(c10d)
    _replace_logger()


def device_backends(c10d: Any, backend: str) -> Dict[str, str]:
    """Which backend the script meant for each device type, as torch's own BackendConfig reads it."""
    return dict(c10d.BackendConfig(c10d.Backend(backend)).get_device_backend_map())


def _ours(c10d: Any, backend: str) -> bool:
    """Whether we carry this backend: every one of torch's own; not one that the script registered itself."""
    try:
        names = device_backends(c10d, backend).values()
    except (ValueError, KeyError, AssertionError):
        return False  # torch says what is wrong with it
    return all(str(name) in TAKEN for name in names)


def _register_backend(c10d: Any) -> None:
    backend = c10d.Backend
    before = list(backend.backend_list), dict(backend.default_device_backend_map)
    backend.register_backend(OURS, functools.partial(_make_group, c10d), True, ["cpu", "cuda"])
    backend.default_device_backend_map.clear()
    backend.default_device_backend_map.update(before[1])


class _Asked:
    """What the group being made was asked for: the creator that torch calls is not told."""

    backend = ""
    device_backends: ClassVar[Dict[str, str]] = {}


def _make_group(c10d: Any, options: Any, backend_options: Any = None) -> Any:
    from .base import Membership
    from .compiling import hide
    from .group import group_class
    from .work import OpFuture, OpWork

    hide(group_class, OpWork, OpFuture)
    global _world
    me, size = options.group_rank, options.group_size
    ranks = tuple(options.global_ranks_in_group)
    if not ranks:
        ranks = tuple(range(size))
        _world = agree(options.store, me, size)
        if _world.name.startswith(JOB):
            seating.joined(_world.name, _world.members, me)
    who = Membership(
        _world.name,
        _world.group_name(str(options.group_id)),
        ranks,
        tuple(_world.known_ranks(ranks)),
        me,
        _Asked.backend,
        _Asked.device_backends,
        _world.name.startswith(JOB) and _world.one_home(ranks),
    )
    return group_class(the_channel(), who, options.store, options.timeout)


def _wrap_helper(c10d: Any) -> None:
    """Groups under torch's own backend names become ours; the tables keep saying what was asked for."""
    original = c10d._new_process_group_helper
    signature = inspect.signature(original)

    @functools.wraps(original)
    def helper(*args: Any, **kwargs: Any) -> Tuple[Any, Any]:
        call = signature.bind(*args, **kwargs)
        backend = c10d.Backend(call.arguments["backend"])
        if not _ours(c10d, backend):
            return original(*args, **kwargs)
        _Asked.backend, _Asked.device_backends = str(backend), device_backends(c10d, backend)
        call.arguments["backend"] = c10d.Backend(OURS)
        device = call.arguments.get("device_id")
        pg, store = original(*call.args, **call.kwargs)
        if isinstance(pg, c10d.ProcessGroup):
            c10d._world.pg_map[pg] = (backend, store)
            c10d._world.pg_backend_config[pg] = str(c10d.BackendConfig(backend))
            if device is not None:
                pg.bound_device_id = device
        return pg, store

    c10d._new_process_group_helper = helper


def _wrap_init(c10d: Any) -> None:
    """``mpi`` takes its ranks from the launcher: here that is the environment."""
    original = c10d.init_process_group
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init_process_group(*args: Any, **kwargs: Any) -> None:
        call = signature.bind(*args, **kwargs)
        backend = call.arguments.get("backend")
        if backend is None or str(backend).lower() != "mpi":
            return original(*args, **kwargs)
        call.arguments["backend"] = "gloo"
        for name, variable in (("rank", "RANK"), ("world_size", "WORLD_SIZE")):
            call.arguments[name] = int(os.environ.get(variable) or call.arguments.get(name, -1))
        original(*call.args, **call.kwargs)
        pg = c10d._get_default_group()
        pg.asked_for("mpi", device_backends(c10d, "mpi"))
        c10d._world.pg_map[pg] = (c10d.Backend("mpi"), c10d._world.pg_map[pg][1])
        c10d._world.pg_backend_config[pg] = str(c10d.BackendConfig(c10d.Backend("mpi")))
        return None

    c10d.init_process_group = init_process_group


def _replace_tcp_store(c10d: Any) -> None:
    from .store import TCPStore

    TCPStore.__module__ = "torch.distributed"
    for name in ("torch._C._distributed_c10d", "torch.distributed", "torch.distributed.rendezvous"):
        module: Any = sys.modules.get(name)
        if module is not None and hasattr(module, "TCPStore"):
            module.TCPStore = TCPStore


def _replace_logger() -> None:
    from .ddp_log import logger_class

    for name in ("torch._C._distributed_c10d", "torch.distributed"):
        module: Any = sys.modules.get(name)
        if module is not None and hasattr(module, "Logger"):
            module.Logger = logger_class(module.Logger)


def _wrap_set_timeout(c10d: Any) -> None:
    """torch sets timeouts on backends of its own classes only."""
    original = c10d._set_pg_timeout

    @functools.wraps(original)
    def _set_pg_timeout(timeout: timedelta, group: Any = None) -> None:
        target = c10d._get_default_group() if group is None else group
        if hasattr(target, "who"):
            target.set_timeout(timeout)
        else:
            original(timeout, group)

    c10d._set_pg_timeout = _set_pg_timeout


def _wrap_split_group(c10d: Any) -> None:
    """A split is a group of the same members: without a communicator to split, it is made like any other."""
    if not hasattr(c10d, "split_group"):
        return
    original = c10d.split_group

    @functools.wraps(original)
    def split_group(parent_pg: Any = None, split_ranks: Any = None, *args: Any, **kwargs: Any) -> Any:
        parent = parent_pg or c10d._get_default_group()
        if not hasattr(parent, "who") or not split_ranks:
            return original(parent_pg, split_ranks, *args, **kwargs)
        call = inspect.signature(original).bind(parent_pg, split_ranks, *args, **kwargs)
        return _split(c10d, parent, split_ranks, call.arguments)

    c10d.split_group = split_group


def _split(c10d: Any, parent: Any, split_ranks: Any, asked: Dict[str, Any]) -> Any:
    to_group = c10d._world.pg_group_ranks[parent]
    to_global = {group_rank: rank for rank, group_rank in to_group.items()}
    me = to_group[c10d._get_default_group().rank()]
    for part in split_ranks:
        if not part:
            raise ValueError("the split group cannot be empty")
        if len(set(part)) != len(part):
            raise ValueError("the split group cannot have duplicate ranks")
    mine = next((sorted(part) for part in split_ranks if me in part), None)
    if mine is None:
        return None
    return c10d.new_group(
        [to_global[rank] for rank in mine],
        timeout=asked.get("timeout"),
        backend=asked.get("backend") or c10d._world.pg_map[parent][0],
        use_local_synchronization=True,
    )
