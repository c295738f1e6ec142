"""The rules that keep the layers apart, as data. The tests beside this file read them; so may you."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "midstep"

# Who may import whom: our own folders, always their own besides. A row for a folder inside a folder
# ("agent/doctor") goes before that of the outer one. STYLE.md's table, with the mailbox (the layout that
# runtime and proxy share) and the workers.
OURS: dict[str, set[str]] = {
    "model": set(),
    "env": set(),
    "mailbox": set(),
    "policy": {"model"},
    "engine": {"model"},
    "wire": {"model"},
    "vault": {"model", "env"},
    "runtime": {"mailbox"},
    "proxy": {"wire", "model", "mailbox"},
    "agent": {"model", "wire", "env", "vault", "proxy"},
    "control": {"model", "policy", "engine", "wire", "env", "vault"},
    "federation": {"model", "policy", "engine", "wire", "env", "control"},
    "substrate": {"model", "env", "client"},
    "api": {"control", "federation", "wire", "model"},
    "client": {"wire", "model"},
    "cli": {"client", "model"},
    "web": set(),
    "sim": {"model", "policy", "engine", "env"},
}
EVERYTHING = {"app"}  # imports what it likes, and is imported by nothing

# Who may import which packages that are not ours; a folder without a row takes what pyproject.toml has.
OTHERS: dict[str, set[str]] = {
    "model": {"numpy"},
    "env": set(),
    "policy": {"numpy"},
    "engine": set(),
    "wire": {"pydantic"},
    "mailbox": set(),
    "runtime": {"torch"},
    "proxy": {"torch", "numpy"},
}

# Imports that a row above forbids and that stay, each with its reason: (file, module) -> reason.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("runtime/inject/sitecustomize.py", "sitecustomize"): "chains to the user's own, that is its job",
}


@dataclass(frozen=True, slots=True)
class Ban:
    calls: frozenset[str]  # dotted names, as imported
    why: str
    instead: str
    allowed_in: tuple[str, ...]  # folders, or files, below src/midstep


BANS = (
    Ban(
        frozenset(
            {"time.time", "time.time_ns", "uuid.uuid1", "uuid.uuid4", "os.urandom"}
            | {f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")}
            | {"datetime.date.today", "random.SystemRandom"}
            | {f"secrets.token_{name}" for name in ("hex", "bytes", "urlsafe")}
            # the module's own generator; a random.Random(seed) that was handed in is what to use
            | {
                f"random.{name}"
                for name in ("random", "randint", "randrange", "choice", "shuffle", "getrandbits")
            }
            | {f"random.{name}" for name in ("sample", "uniform", "choices", "gauss", "expovariate")}
        ),
        why="a decision that reads the wall clock or chance cannot be replayed",
        instead="take a midstep.env Clock or Ids (or a value) as an argument",
        # the runtime stands in for torch's own behaviour inside the job; a proxy and a driver see the real
        # world; the command line shows ages to people
        allowed_in=("env", "runtime", "mailbox", "proxy", "agent/drivers", "cli"),
    ),
    Ban(
        frozenset(
            {"time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.sleep", "asyncio.sleep"}
        ),
        why="code that waits by the real clock cannot be simulated",
        instead="take a midstep.env Clock and use its monotonic_s() and sleep()",
        # these wait for real processes, files and links, with deadlines that are about the real world
        allowed_in=("env", "runtime", "mailbox", "proxy", "agent", "substrate/local", "app", "cli", "client"),
    ),
)

FILE_LINES = 300
FUNCTION_LINES = 60
