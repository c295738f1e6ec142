"""``python -m midstep.proxy FD``: a proxy, or with ``--zygote`` a server that forks them, on an inherited
socket."""

from __future__ import annotations

import logging
import os
import socket
import sys

logging.basicConfig(
    level=os.environ.get("MIDSTEP_LOG", "WARNING"), format="%(asctime)s proxy %(process)d %(message)s"
)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[-1]))
    if "--zygote" in sys.argv:
        from midstep.proxy.zygote import fork_server

        fork_server(control)
    else:
        from midstep.proxy.control import serve

        serve(control)


if __name__ == "__main__":
    main()
