"""Layers are a test: who imports whom, and who may read clocks and chance. The tables are in rules.py."""

from __future__ import annotations

import sys

from tests.tidy.rules import BANS, EVERYTHING, EXCEPTIONS, OTHERS, OURS, Ban
from tests.tidy.source import Import, Module, calls, imports, modules


def test_every_folder_has_a_row() -> None:
    known = set(OURS) | EVERYTHING
    strangers = sorted({module.folder for module in modules()} - known)
    assert not strangers, f"no row in tests/tidy/rules.py for {strangers}: say what they may import"


def test_folders_import_only_what_their_row_allows() -> None:
    complaints = [
        complaint
        for module in modules()
        if module.folder in OURS
        for item in imports(module)
        if (complaint := complain_about_import(module, item))
    ]
    assert not complaints, "\n" + "\n".join(complaints)


def complain_about_import(module: Module, item: Import) -> str:
    top, _, rest = item.module.partition(".")
    if (module.name, item.module) in EXCEPTIONS or top in sys.stdlib_module_names or top == "__future__":
        return ""
    where = f"src/midstep/{module.name}:{item.line} imports {item.module}"
    if top != "midstep":
        if module.folder not in OTHERS or top in OTHERS[module.folder]:
            return ""
        allowed = ", ".join(["the standard library", *sorted(OTHERS[module.folder])])
        return (
            f"{where}: {module.folder} uses {allowed} only; take a value as an argument, or move the code up"
        )
    folder = rest.split(".")[0]
    if folder in (module.folder, "__init__", "") or folder in OURS[module.folder]:
        return ""
    allowed = ", ".join(sorted(OURS[module.folder])) or "nothing of ours"
    return (
        f"{where}: {module.folder} may import {allowed}; hand it in from above (a Protocol, a callable, a "
        "value), move what both need down to model, or put the parts together in app"
    )


def test_time_chance_and_ids_come_from_env() -> None:
    complaints = [
        f"src/midstep/{module.name}:{line} uses {name}: {ban.why}; {ban.instead}"
        for ban in BANS
        for module in modules()
        if not module.below(ban.allowed_in)
        for name, line in banned_in(module, ban)
    ]
    assert not complaints, "\n" + "\n".join(complaints)


def banned_in(module: Module, ban: Ban) -> list[tuple[str, int]]:
    return [(name, line) for name, line in calls(module) if name in ban.calls]


def test_exceptions_are_still_needed() -> None:
    there = {(module.name, item.module) for module in modules() for item in imports(module)}
    stale = sorted(set(EXCEPTIONS) - there)
    assert not stale, f"remove from EXCEPTIONS in tests/tidy/rules.py: {stale}"
