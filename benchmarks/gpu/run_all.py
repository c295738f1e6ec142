"""Run every experiment with a time limit; results as one JSON list: run_all.py [OUTPUT, build/gpu.json]"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIMIT_S = {
    "probe": 60,
    "exp1_checkpoint": 420,
    "exp2_matrix": 240,
    "exp3_sharing": 400,
    "exp4_reduce": 120,
    "exp5_overhead": 300,
    "exp6_edges": 180,
    "exp7_limit": 180,
    "service": 600,
}


def run(name: str, limit_s: int, environment: dict[str, str]) -> str:
    process = subprocess.Popen([sys.executable, str(HERE / f"{name}.py")], env=environment)
    try:
        return f"exit {process.wait(limit_s)}"
    except subprocess.TimeoutExpired:
        process.terminate()  # not a kill: it ends its ranks, which would hold the device otherwise
        return f"timed out, exit {process.wait(60)}"


def main() -> None:
    output = Path(sys.argv[1] if len(sys.argv) > 1 else "build/gpu.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    results = Path(tempfile.mkdtemp()) / "results.jsonl"
    environment = {**os.environ, "MIDSTEP_GPU_RESULTS": str(results)}
    if "CRIU" in os.environ:
        environment.setdefault("MIDSTEP_CRIU", os.environ["CRIU"])
    for name, limit_s in LIMIT_S.items():
        print(f"{name}: {run(name, limit_s, environment)}", flush=True)
    lines = results.read_text().splitlines() if results.exists() else []
    output.write_text(json.dumps([json.loads(line) for line in lines], indent=1))


if __name__ == "__main__":
    main()
