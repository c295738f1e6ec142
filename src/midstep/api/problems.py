"""Errors as problem documents (RFC 9457). Codes are stable:

| status | codes |
| --- | --- |
| 400 | bad_request |
| 401 | not_allowed |
| 404 | no_such_job, not_found, no_such_snapshot, no_files, no_such_path, no_such_node, no_such_quota |
| 405 | no_such_method |
| 409 | ambiguous_job, job_ended, already_suspended, not_suspended, already_there, is_migrating, cannot_move |
| 409 | is_elsewhere, is_here, not_ready, no_blob, job_exists (between controllers, mostly) |
| 409 | no_files, already_that_size, already_free, node_cordoned, not_cordoned, not_draining, quota_exceeded |
| 422 | invalid (which field, what was expected), too_large, no_such_device_type, no_such_place |
| 422 | impossible, bad_launcher, bad_blob, turned_away |
| 500 | internal |
| 502 | region_faulty |
| 503 | state_unavailable, region_cut_off, no_nodes |
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from midstep.control.errors import BadBlob, NotFound, Rejected, StateError
from midstep.wire.api import Problem

LOG = logging.getLogger("midstep.api")
_SHORT = 60

Handler = Callable[[Request, Exception], Awaitable[JSONResponse]]


def answer(problem: Problem) -> JSONResponse:
    """A problem as a response."""
    headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else None
    return JSONResponse(
        asdict(problem), status_code=problem.status, headers=headers, media_type="application/problem+json"
    )


def from_validation(error: RequestValidationError | ValidationError) -> Rejected:
    """What pydantic found, in words: the first fault as title, all of them in the detail."""
    faults = error.errors()
    lines = [f"{_field(fault['loc'])}: {_words(fault)}" for fault in faults]
    return Rejected(422, "invalid", f"{_field(faults[0]['loc'])} is not valid", "; ".join(lines))


def _field(location: tuple[object, ...]) -> str:
    parts = [str(part) for part in location if part not in ("body", "query", "path")]
    return ".".join(parts) or "the request"


def _words(fault: Mapping[str, Any]) -> str:
    message = str(fault["msg"]).replace("Input should be", "must be")
    given = repr(fault.get("input"))
    return message if fault["type"] == "missing" or len(given) > _SHORT else f"{message}, not {given}"


def install(app: FastAPI) -> None:
    """Let every error of this program leave as a problem."""
    app.add_exception_handler(Rejected, _rejected)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _internal)
    app.add_exception_handler(NotFound, _plain(404, "not_found"))
    app.add_exception_handler(BadBlob, _plain(422, "bad_blob", "upload a work directory as .tar.gz"))
    for kind in (StateError, OSError):
        app.add_exception_handler(kind, _plain(503, "state_unavailable", "is the controller's disk full?"))


async def _rejected(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Rejected)
    return answer(error.problem)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return answer(from_validation(error).problem)


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = {404: "no_such_path", 405: "no_such_method"}.get(error.status_code, "bad_request")
    return answer(Problem(str(error.detail), error.status_code, code))


async def _internal(request: Request, error: Exception) -> JSONResponse:
    LOG.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
    hint = "this is a mistake of Midstep's; its log has the details"
    return answer(Problem("the controller failed", 500, "internal", type(error).__name__, hint))


def _plain(status: int, code: str, hint: str = "") -> Handler:
    async def handler(_: Request, error: Exception) -> JSONResponse:
        return answer(Problem(str(error), status, code, "", hint))

    return handler
