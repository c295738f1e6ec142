"""Small in the small: files and functions that have grown too long are named, with what to do."""

from __future__ import annotations

from tests.tidy.rules import FILE_LINES, FUNCTION_LINES
from tests.tidy.source import functions, modules


def test_files_fit_on_a_few_screens() -> None:
    long = [(len(module.text.splitlines()), module.name) for module in modules()]
    complaints = [
        f"src/midstep/{name} has {lines} lines (at most {FILE_LINES}): it holds more than one subject; "
        "move the second one, with its helpers, to a module of its own"
        for lines, name in sorted(long, reverse=True)
        if lines > FILE_LINES
    ]
    assert not complaints, "\n" + "\n".join(complaints)


def test_functions_fit_on_one_screen() -> None:
    complaints = [
        f"src/midstep/{module.name}:{function.line} {function.name} has {function.lines} lines (at most "
        f"{FUNCTION_LINES}): name its phases and make each a function, or make the branching a table"
        for module in modules()
        for function in functions(module)
        if function.lines > FUNCTION_LINES
    ]
    assert not complaints, "\n" + "\n".join(complaints)
