"""The doctor without the command line around it, for set-up scripts. Exit status 1 when CRIU could not be
installed.
"""

from __future__ import annotations

import sys

from midstep.agent.doctor import examine, fix
from midstep.agent.install.criu_errors import CriuInstallError


def main() -> int:
    if "--fix" in sys.argv[1:]:
        try:
            fix(lambda line: print(f"doctor: {line}", flush=True))
        except CriuInstallError as error:
            print(f"doctor: CRIU was not installed: {error}", file=sys.stderr)
            return 1
        return 0
    for row in examine():
        print(f"{row.status.value:<5} {row.what:<18} {row.found}")
        if row.todo:
            print(f"{'':<24} -> {row.todo}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
