"""Found by Python at its start through PYTHONPATH: puts Midstep's runtime behind ``torch.distributed``.

It may be loaded by any Python, old or without torch, in any process of a job, so nothing here may fail or
cost much: without torch.distributed it only puts one finder on ``sys.meta_path``. The site's or user's own
sitecustomize, which this file hides, is run as well.
"""
# pyright: basic, reportMissingImports=false, reportArgumentType=false, reportOptionalMemberAccess=false


def _chain(here):
    """Run the next sitecustomize on the path, as Python would have without us."""
    import os
    import sys

    saved = list(sys.path)
    own = sys.modules.pop("sitecustomize", None)
    sys.path[:] = [p for p in saved if os.path.realpath(p or ".") != here]
    try:
        import sitecustomize  # noqa: F401
    except ImportError as error:
        if getattr(error, "name", None) not in (None, "sitecustomize"):
            raise
        if own is not None:
            sys.modules["sitecustomize"] = own
    finally:
        added = [p for p in sys.path if p not in saved]
        sys.path[:] = added + saved


def _start(here):
    """Install the runtime for processes of a job."""
    import os
    import sys

    if not os.environ.get("MIDSTEP_RUN") or sys.version_info < (3, 9):
        return
    import importlib.util

    runtime = os.path.dirname(here)
    spec = importlib.util.spec_from_file_location("_midstep_bootstrap", os.path.join(runtime, "bootstrap.py"))
    bootstrap = importlib.util.module_from_spec(spec)
    sys.modules["_midstep_bootstrap"] = bootstrap
    spec.loader.exec_module(bootstrap)
    bootstrap.install(os.path.dirname(runtime))


def _main():
    import os
    import sys

    here = os.path.dirname(os.path.realpath(__file__))
    try:
        _start(here)
    except Exception:
        if os.environ.get("MIDSTEP_DEBUG"):
            raise
        sys.stderr.write("midstep: the runtime could not be installed in this Python; it runs without\n")
    _chain(here)


_main()
