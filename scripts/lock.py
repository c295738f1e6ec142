"""Write requirements.lock: every package that `midstep[dev]` needs, transitively, at one exact version; and
requirements-zoo.lock: what `midstep[zoo]` needs besides.

    .venv/bin/python scripts/lock.py            (or: make lock)

pip's own resolver decides, in a dry run that ignores what is installed; nothing is installed. The lock holds
names and versions only, so that it works with whatever index or folder of wheels pip is configured with. Left
out: local version labels (`+cpu`), and the packages that a CUDA build of torch pins itself (they would be
dead weight without a GPU).
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
ZOO_LOCK = ROOT / "requirements-zoo.lock"
PINNED_BY_TORCH = re.compile(r"^(nvidia-|cuda-|triton$)")
HEADER = """\
# Exact versions of everything that `make setup` installs. Written by `make lock`; do not edit.
"""


ZOO_HEADER = """\
# What `make soak` installs besides requirements.lock. Written by `make lock`; do not edit.
"""


def resolve(extras: str, *options: str) -> dict[str, str]:
    """Name -> version of all that pip would install into an empty environment."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--dry-run",
        "--ignore-installed",
        "--report",
        "-",
    ]
    done = subprocess.run(
        [*command, *options, f"{ROOT}[{extras}]"], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(
            f"lock: pip could not resolve midstep[{extras}]; its message is above; its lock is unchanged"
        )
    installs = json.loads(done.stdout)["install"]
    metadata = [item["metadata"] for item in installs]
    return {
        re.sub(r"[-_.]+", "-", entry["name"]).lower(): entry["version"].split("+")[0] for entry in metadata
    }


def write(lock: Path, header: str, pins: dict[str, str]) -> None:
    lines = [f"{name}=={pins[name]}\n" for name in sorted(pins) if not PINNED_BY_TORCH.match(name)]
    lock.write_text(header + "".join(lines))
    print(f"lock: {len(lines)} packages in {lock.name}")


def main() -> None:
    """``--zoo``: leave requirements.lock as it is."""
    if "--zoo" not in sys.argv[1:]:
        pins = resolve("dev")
        pins.pop("midstep", None)
        write(LOCK, HEADER, pins)
    base = {line.partition("==")[0] for line in LOCK.read_text().splitlines()} | {"midstep"}
    more = resolve("dev,zoo", "--constraint", str(LOCK))
    write(ZOO_LOCK, ZOO_HEADER, {name: version for name, version in more.items() if name not in base})


if __name__ == "__main__":
    main()
