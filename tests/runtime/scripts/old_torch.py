"""Runs another script with the handles that an older torch needs (there C++ cannot keep a Python one)."""

import importlib
import runpy
import sys
from pathlib import Path

import torch.distributed  # noqa: F401

importlib.import_module("_midstep.runtime.work").KEEPS_PYTHON_WORK = False
script, *sys.argv[1:] = sys.argv[1:]
runpy.run_path(str(Path(__file__).parent / script), run_name="__main__")
