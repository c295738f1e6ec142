"""What DDP's log says of the backend: the same as with the backend that the script asked for.

DDP's C++ logger takes any group whose name is "gloo" for gloo's own class and reads its fields, so our groups
bear another name there, and the log's readers are given the asked-for one.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

OUR_PREFIX = "midstep:"
GLOO_THREADS = 2


def logger_class(original: Any) -> Any:
    """A subclass of torch's DDP logger."""

    class Logger(original):  # type: ignore[misc]
        def _get_ddp_logging_data(self) -> Any:
            data = super()._get_ddp_logging_data()
            texts, numbers = dict(data.strs_map), dict(data.ints_map)
            backend = texts.get("backend_name", "")
            if backend.startswith(OUR_PREFIX):
                texts["backend_name"] = backend[len(OUR_PREFIX) :]
            if texts.get("backend_name") == "gloo":
                for name in ("GLOO_SOCKET_IFNAME", "GLOO_DEVICE_TRANSPORT"):
                    texts[name.lower()] = os.environ.get(name, "N/A")
                numbers["gloo_num_threads"] = GLOO_THREADS
            return SimpleNamespace(strs_map=texts, ints_map=numbers)

    return Logger
