"""Loads the runtime into a job's interpreter, when and only when it imports ``torch.distributed``.

(``gpus`` is an exception: it minds forks and ``torch.cuda`` in every interpreter of a job.)

The folder's packages are loaded under a private name, so that neither Midstep's folder nor what it depends on
is ever on the job's path. Standard library only; any error while hooking leaves the job's import as it was.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any, Optional, Sequence

PRIVATE = "_midstep"
WATCHED = "torch.distributed.distributed_c10d"
WATCHED_TOO = "torch.cuda"
WATCHED_FOR_SPLICING = "torch.optim.optimizer"


class _Loader(importlib.abc.Loader):
    """A module's own loader, and the takeover after it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Optional[ModuleType]:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None:
            spec.loader = self._loader  # what the module says of itself is as without us
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        if module.__name__ == WATCHED_TOO:
            _mind_gpus(module)
        elif module.__name__ == WATCHED_FOR_SPLICING:
            _mind_optimizers(module)
        else:
            _take_over(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the watched module as everybody else would, once, and gives it our loader."""

    def __init__(self) -> None:
        self._busy = False

    def find_spec(
        self, fullname: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        if fullname not in (WATCHED, WATCHED_TOO, WATCHED_FOR_SPLICING) or self._busy:
            return None
        self._busy = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._busy = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def install(source: str) -> None:
    """Watch for ``torch.distributed``. ``source``: the folder that holds ``runtime`` and ``mailbox``."""
    if PRIVATE in sys.modules:
        return
    # Which rank of the job this is, before the script changes RANK for processes that it starts.
    os.environ.setdefault("MIDSTEP_RANK", os.environ.get("RANK", "0"))
    os.environ.setdefault("MIDSTEP_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1"))
    package = ModuleType(PRIVATE, "Midstep's runtime, inside a job.")
    package.__path__ = [source]
    package.__spec__ = importlib.machinery.ModuleSpec(PRIVATE, None, is_package=True)
    package.__spec__.submodule_search_locations = [source]
    sys.modules[PRIVATE] = package
    importlib.import_module(PRIVATE + ".runtime.gpus").install()
    if WATCHED_FOR_SPLICING in sys.modules:
        _mind_optimizers(sys.modules[WATCHED_FOR_SPLICING])
    if WATCHED in sys.modules:
        _take_over(sys.modules[WATCHED])
        return
    sys.meta_path.insert(0, _Finder())


def _mind_gpus(module: ModuleType) -> None:
    try:
        importlib.import_module(PRIVATE + ".runtime.gpus").close_nvml(module)
    except Exception:
        if os.environ.get("MIDSTEP_DEBUG"):
            raise


def _mind_optimizers(module: ModuleType) -> None:
    """Optimizers that are not spliced work as ever."""
    try:
        importlib.import_module(PRIVATE + ".runtime.splice.hook").install(module)
    except Exception:
        if os.environ.get("MIDSTEP_DEBUG"):
            raise


def _take_over(module: ModuleType) -> None:
    """A torch that we cannot take over works by itself; that the job cannot be moved then is said."""
    try:
        importlib.import_module(PRIVATE + ".runtime.takeover").take_over(module)
    except Exception as error:
        if os.environ.get("MIDSTEP_DEBUG"):
            raise
        sys.stderr.write(
            "midstep: torch.distributed could not be taken over (%s: %s); it opens its own connections, "
            "so this job cannot be suspended or moved\n" % (type(error).__name__, error)
        )
