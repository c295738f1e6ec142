"""Cases of several scripts in one process, so that torch is imported once: ``many.py ddp:adamw lives ...``.

A script's name alone stands for all of its cases.
"""

import importlib
import sys

import kit

if __name__ == "__main__":
    names = []
    for word in sys.argv[1:]:
        script, _, name = word.partition(":")
        before = set(kit.CASES)
        importlib.import_module(script)
        names += [name] if name else [case for case in kit.CASES if case not in before]
    sys.argv[1:] = names
    kit.main()
