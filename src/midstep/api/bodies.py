"""JSON bodies as the wire's dataclasses, strict about names: a misspelt field is an error, not a default."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, cast

from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from midstep.api.problems import from_validation
from midstep.control.errors import Rejected, invalid
from midstep.wire.api import JobRequest, MigrateRequest, ResizeRequest
from midstep.wire.plan import PlanRequest
from midstep.wire.schedule import DrainRequest, QuotaRequest

T = TypeVar("T")
_adapter = cache(TypeAdapter[Any])


async def parsed(kind: type[T], request: Request) -> T:
    """The body as any of the wire's dataclasses; raises Rejected."""
    body = await _json(request)
    names = [field.name for field in fields(cast("Any", kind))]
    known = f"the fields are {', '.join(names)}"
    if not isinstance(body, dict):
        raise invalid("the request", "a JSON object is expected", known)
    values = cast("dict[str, Any]", body)
    if unknown := sorted(set(values) - set(names)):
        raise invalid(unknown[0], "there is no such field", known)
    try:
        return _adapter(kind).validate_python(values)
    except ValidationError as error:
        raise from_validation(error) from None


async def _json(request: Request) -> object:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise Rejected(400, "bad_request", "the body is not JSON", str(error)) from None


def _of(kind: type[T]) -> Callable[[Request], Coroutine[Any, Any, T]]:
    """For a route: the body as that; raises Rejected."""

    async def read(request: Request) -> T:
        return await parsed(kind, request)

    return read


job_request = _of(JobRequest)
migrate_request = _of(MigrateRequest)
resize_request = _of(ResizeRequest)
drain_request = _of(DrainRequest)
quota_request = _of(QuotaRequest)
plan_request = _of(PlanRequest)
