"""The parts of torch that the runtime builds on, untyped: their stubs differ between torch 2.4 and today's.

Light: this is loaded while torch itself is being imported.
"""

from __future__ import annotations

import importlib
from typing import Any

C10D: Any = importlib.import_module("torch._C._distributed_c10d")
ProcessGroup: Any = C10D.ProcessGroup
Store: Any = C10D.Store
Work: Any = C10D.Work
create_work_from_future: Any = C10D._create_work_from_future
backend_options: Any = C10D.Backend.Options if hasattr(C10D.Backend, "Options") else None


def torch_error(name: str) -> Any:
    """The error class of that name, or RuntimeError, from which all of them derive, in a torch without it."""
    return getattr(importlib.import_module("torch.distributed"), name, RuntimeError)
