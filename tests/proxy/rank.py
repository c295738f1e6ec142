"""A rank of the harness: ``python -m tests.proxy.rank MODULE:FUNCTION FOLDER``."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from pathlib import Path

from midstep.mailbox.channel import MailboxChannel


def main() -> None:
    module, function = sys.argv[1].split(":")
    folder = Path(sys.argv[2])
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    args = pickle.loads((folder / f"args{rank}").read_bytes())
    channel = MailboxChannel(rank, size, os.environ["MIDSTEP_RUN"])
    result = getattr(importlib.import_module(module), function)(channel, rank, size, *args)
    (folder / f"result{rank}.new").write_bytes(pickle.dumps(result))
    os.replace(folder / f"result{rank}.new", folder / f"result{rank}")
    channel.close()


if __name__ == "__main__":
    main()
