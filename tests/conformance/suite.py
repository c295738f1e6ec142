"""torch's own distributed tests, one after the other in this process, each with ranks of its own.

Run as ``python suite.py OUTCOMES [TEST ...]`` (no test: all). Writes a JSON line for each test to OUTCOMES;
what the tests and their ranks print goes to standard error. Nothing here knows of Midstep: under it, it is an
ordinary job.

The ranks are forked from a server that has imported torch, instead of each importing it again: they start
with no process group, no thread and no connection, as spawned ones do.
"""

import atexit
import json
import os
import shutil
import sys
import tempfile
import time
import unittest

os.environ.setdefault("BACKEND", "gloo")
os.environ.setdefault("WORLD_SIZE", "4")
if "TEMP_DIR" not in os.environ:  # its ranks run this file as well
    os.environ["TEMP_DIR"] = tempfile.mkdtemp(prefix="conformance-")
    atexit.register(shutil.rmtree, os.environ["TEMP_DIR"], ignore_errors=True)
os.environ.setdefault("DISTRIBUTED_TESTS_DEFAULT_TIMEOUT", "90")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The server that ranks are forked from finds this file as well.
_PATHS = [os.environ.get("PYTHONPATH", ""), os.path.dirname(os.path.abspath(__file__))]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _PATHS))

import torch  # noqa: E402
import torch.multiprocessing  # noqa: E402
from torch.testing._internal.distributed.distributed_test import DistributedTest, TestDistBackend  # noqa: E402


class Conformance(TestDistBackend, DistributedTest._DistTestBase):
    """torch's test class; only how its ranks are started differs."""

    def setUp(self):
        super().setUp()
        self._spawn_processes()

    def _spawn_processes(self):
        context = torch.multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["suite", "torch._dynamo"])

        def start(target, name, args, kwargs):
            return context.Process(target=_as_here, name=name, args=(dict(os.environ), target, args, kwargs))

        self._start_processes(start)


def _as_here(environment, target, args, kwargs):
    """In a rank: run with the environment of the process that started it, as a spawned one does."""
    os.environ.clear()
    os.environ.update(environment)
    target(*args, **kwargs)


class Recorder(unittest.TestResult):
    """Writes each outcome as soon as it is known."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.failed = 0

    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()

    def record(self, test, outcome, reason=""):
        name = test.id().rsplit(".", 1)[-1]
        row = {
            "test": name,
            "outcome": outcome,
            "reason": reason,
            "seconds": round(time.monotonic() - self.began, 1),
        }
        self.failed += outcome == "fail"
        with open(self.path, "a") as out:
            out.write(json.dumps(row) + "\n")
        print(f"{outcome}: {name} ({row['seconds']} s) {reason[-2000:]}", file=sys.stderr, flush=True)

    def addSuccess(self, test):
        self.record(test, "pass")

    def addSkip(self, test, reason):
        self.record(test, "skip", reason)

    def addError(self, test, err):
        self.record(test, "fail", self._exc_info_to_string(err, test))

    addFailure = addError


def names():
    """Every test of the suite."""
    return unittest.TestLoader().getTestCaseNames(Conformance)


def main():
    outcomes, wanted = sys.argv[1], sys.argv[2:] or names()
    recorder = Recorder(outcomes)
    unittest.TestSuite(Conformance(name) for name in wanted).run(recorder)
    return 1 if recorder.failed else 0


if __name__ == "__main__":
    import suite  # the ranks must find the class under the module's own name

    sys.exit(suite.main())
