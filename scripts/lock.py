"""Write requirements.lock: every package that `midstep[dev]` needs, transitively, at one exact version.

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
PINNED_BY_TORCH = re.compile(r"^(nvidia-|cuda-|triton$)")
HEADER = """\
# Exact versions of everything that `make setup` installs. Written by `make lock`; do not edit.
"""


def resolve() -> dict[str, str]:
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
    done = subprocess.run([*command, f"{ROOT}[dev]"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            "lock: pip could not resolve midstep[dev]; its message is above; requirements.lock is unchanged"
        )
    installs = json.loads(done.stdout)["install"]
    metadata = [item["metadata"] for item in installs]
    return {
        re.sub(r"[-_.]+", "-", entry["name"]).lower(): entry["version"].split("+")[0] for entry in metadata
    }


def main() -> None:
    pins = resolve()
    pins.pop("midstep", None)
    lines = [f"{name}=={pins[name]}\n" for name in sorted(pins) if not PINNED_BY_TORCH.match(name)]
    LOCK.write_text(HEADER + "".join(lines))
    print(f"lock: {len(lines)} packages in {LOCK.name}")


if __name__ == "__main__":
    main()
