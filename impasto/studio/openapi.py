"""The studio's HTTP API as an OpenAPI document, made of its routes, their docstrings and the checked requests."""

import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter
from starlette.routing import Route

from impasto.studio.job_request import InstantRequest, JobRequest, Label

REF = "#/components/schemas/{model}"
ANSWERS: dict[str, Any] = {
    "200": {"description": "JSON, or the file"},
    "4XX": {"description": "what is wrong", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}},
}
ERROR = {"type": "object", "properties": {"error": {"type": "string", "description": "one sentence"}}, "required": ["error"]}
BODIES: dict[tuple[str, str], Any] = {
    ("post", "/api/jobs"): {"$ref": "#/components/schemas/JobRequest"},
    ("post", "/api/live"): {"$ref": "#/components/schemas/InstantRequest"},
    ("post", "/api/live/mask"): {"type": "object", "properties": {"picture": {"type": "string"}, "mask": {"type": "string"}}},
    ("post", "/api/jobs/{id}/label"): {"$ref": "#/components/schemas/Label"},
    ("post", "/api/jobs/{id}/change"): {"type": "object", "properties": {"knobs": {"type": "object"}}},
}
QUERIES = {
    ("get", "/api/jobs"): ("search", "kind"),
    ("post", "/api/pictures"): ("name", "mask"),
    ("post", "/api/live"): ("for",),
    ("get", "/api/zip"): ("id",),
    ("get", "/api/jobs/{id}/as/{format}"): ("recipe",),
}


def openapi(routes: Iterable[Route]) -> dict[str, Any]:
    """The document, OpenAPI 3.1, of the routes below /api."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r":\w+}", "}", route.path)
        for method in sorted((route.methods or set()) - {"HEAD"}) if path.startswith("/api/") else ():
            paths.setdefault(path, {})[method.lower()] = _operation(route, method.lower(), path)
    info = {"title": "Impasto studio", "version": version("impasto"), "description": "For programs of this machine's user alone."}
    key = {"type": "http", "scheme": "bearer", "description": "the key in studio.json in the studio's folder"}
    return {
        "openapi": "3.1.0",
        "info": info,
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": {"key": key}},
        "security": [{"key": []}],
    }


def _operation(route: Route, method: str, path: str) -> dict[str, Any]:
    said = (route.endpoint.__doc__ or "").strip().split("\n\n")[0]
    given = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in re.findall(r"{(\w+)}", path)]
    given += [{"name": name, "in": "query", "schema": {"type": "string"}} for name in QUERIES.get((method, path), ())]
    if method != "get":
        given.append({"name": "X-Impasto", "in": "header", "required": True, "schema": {"const": "1"}})
    operation: dict[str, Any] = {"summary": " ".join(said.split()), "parameters": given, "responses": ANSWERS}
    if body := BODIES.get((method, path)):
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    elif (method, path) == ("post", "/api/pictures"):
        operation["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    return operation


def _schemas() -> dict[str, Any]:
    found: dict[str, Any] = {"Error": ERROR}
    kinds: dict[str, Any] = {"JobRequest": JobRequest, "InstantRequest": InstantRequest, "Label": Label}
    for name, kind in kinds.items():
        schema = TypeAdapter(kind).json_schema(ref_template=REF)
        found |= schema.pop("$defs", {})
        found[name] = schema
    return found
