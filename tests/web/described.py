"""An OpenAPI description as a judge of requests and answers.

It knows what the description of the client API uses of OpenAPI 3.1, and nothing else: a word that it does not know is
an error, so that nothing in the description is passed over in silence.
"""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import yaml
from attrs import frozen

from tests.web.client import Answer

METHODS = ("get", "head", "put", "post", "delete", "patch", "options")

KINDS: dict[str, type] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}

SAID = frozenset({"description", "example", "examples", "default"})
"""Words of a schema that demand nothing."""

BOUNDS = (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"))

DEMANDED = frozenset(("$ref", "type", "required", "properties", "items", "enum", "format", "pattern", *sum(BOUNDS, ())))
"""Words of a schema that can be broken."""

TEXT = "text/plain; charset=utf-8"
"""The type of an error's sentence; the description shows errors without content."""


class Broken(AssertionError):
    """A request or an answer is not what the description promises."""


@frozen
class Operation:
    """One method of one path."""

    name: str
    method: str
    path: str
    security: tuple[str | None, ...]
    """The schemes with which it can be asked; None for none at all."""
    parameters: tuple[dict[str, Any], ...]
    body: dict[str, Any] | None
    responses: dict[int, dict[str, Any]]


@frozen
class Description:
    """A description that was read."""

    document: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Description":
        """Read the YAML of a description."""
        return cls(yaml.safe_load(path.read_text("utf-8")))

    @property
    def operations(self) -> dict[str, Operation]:
        """Every operation by its name."""
        found = {}
        for path, item in self.document["paths"].items():
            for method in METHODS:
                if method in item:
                    operation = self._operation(path, method, item)
                    found[operation.name] = operation
        return found

    def _operation(self, path: str, method: str, item: dict[str, Any]) -> Operation:
        said = item[method]
        security = said.get("security", self.document.get("security")) or [{}]
        return Operation(
            name=said["operationId"],
            method=method.upper(),
            path=path,
            security=tuple(next(iter(scheme), None) for scheme in security),
            parameters=tuple(self._resolved(one) for one in (*item.get("parameters", ()), *said.get("parameters", ()))),
            body=said.get("requestBody"),
            responses={int(status): response for status, response in said["responses"].items()},
        )

    def _resolved(self, value: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in value:
            found: Any = self.document
            for step in value["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            value = found
        return value

    # --- requests ---

    def check_request(self, operation: Operation, target: str, headers: dict[str, str], body: bytes | None) -> None:
        """Raise `Broken` unless a request is one that the description invites."""
        path, _, query = target.partition("?")
        pattern = re.sub(r"\\{(\w+)\\}", lambda name: f"(?P<{name[1]}>{_reach(name[1])})", re.escape(operation.path))
        found = re.fullmatch(pattern, path)
        _demand(found is not None, f"{path} is no {operation.path}")
        assert found is not None
        given = {"path": [(name, unquote(value)) for name, value in found.groupdict().items()]}
        given["query"] = parse_qsl(query, keep_blank_values=True)
        given["header"] = [(name.lower(), value) for name, value in headers.items()]
        known = {(one["in"], one["name"]) for one in operation.parameters}
        for name, _ in given["query"]:
            _demand(("query", name) in known, f"the query has a {name} that nobody described")
        for one in operation.parameters:
            name = one["name"].lower() if one["in"] == "header" else one["name"]
            values = [value for key, value in given[one["in"]] if key == name]
            _demand(bool(values) or not one.get("required"), f"there is no {name}")
            if values:
                self._check_texts(values, one["schema"], name)
        self._check_request_body(operation, headers, body)

    def _check_texts(self, values: list[str], schema: dict[str, Any], where: str) -> None:
        if schema["type"] == "array":
            self.check(values, schema, where)
        else:
            self.check(_spoken(values[-1], schema["type"], where), schema, where)

    def _check_request_body(self, operation: Operation, headers: dict[str, str], body: bytes | None) -> None:
        if operation.body is None:
            _demand(body is None, "there is a body that nobody described")
            return
        _demand(body is not None or not operation.body.get("required"), "there is no body")
        media = headers.get("Content-Type", "application/octet-stream")
        _demand(media in operation.body["content"], f"{media} was not described")
        if media == "application/json":
            self.check(json.loads(body or b""), operation.body["content"][media]["schema"], "body")

    # --- answers ---

    def check_answer(self, operation: Operation, answer: Answer, lacks: frozenset[str] = frozenset()) -> None:
        """Raise `Broken` unless an answer is one of those described; `lacks`: the fields that it has not."""
        _demand(answer.status in operation.responses, f"{operation.name} answers {answer.status}")
        response = operation.responses[answer.status]
        fields = response.get("headers", {})
        missing = {name for name in fields if answer.header(name.lower()) is None}
        _demand(missing == lacks, f"it lacks {sorted(missing)}, and not {sorted(lacks)}")
        for name in fields.keys() - missing:
            schema = fields[name]["schema"]
            value = answer.header(name.lower()) or ""
            self.check(_spoken(value, schema["type"], name), schema, name)
        self._check_content(operation, answer, response)

    def _check_content(self, operation: Operation, answer: Answer, response: dict[str, Any]) -> None:
        kind = answer.header("content-type")
        if operation.method == "HEAD":
            _demand(not answer.body, "there is a body after HEAD")
        elif "content" in response:
            self._check_body(answer, response)
        elif answer.status < 400:
            _demand(not answer.body, "there is a body that nobody described")
        else:
            _demand(kind == TEXT and bool(answer.body), f"an error without a sentence: {kind}")

    def _check_body(self, answer: Answer, response: dict[str, Any]) -> None:
        content = response["content"]
        media = (answer.header("content-type") or "").partition(";")[0]
        if media not in content and "Content-Type" in response.get("headers", {}):
            media = "application/octet-stream"  # whatever the file is: the field tells, and is described by itself
        _demand(media in content, f"a body of type {media}")
        schema = content[media]["schema"]
        if media == "application/json":
            self.check(json.loads(answer.body), schema, "body")
        elif schema.get("format") != "binary":
            self.check(answer.body.decode("utf-8"), schema, "body")

    # --- schemas ---

    def check(self, value: Any, schema: dict[str, Any], where: str) -> None:
        """Raise `Broken` unless a value is what a schema describes; members that it does not name are none of it."""
        schema = self._resolved(schema)
        unknown = schema.keys() - SAID - DEMANDED
        _demand(not unknown, f"{where}: {sorted(unknown)} is not understood")
        kind = KINDS[schema["type"]]
        fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        _demand(fits, f"{where}: {value!r} is no {schema['type']}")
        if "enum" in schema:
            _demand(value in schema["enum"], f"{where}: {value!r} is none of {schema['enum']}")
        for low, high, size in (
            ("minimum", "maximum", value),
            ("minLength", "maxLength", None),
            ("minItems", "maxItems", None),
        ):
            if low in schema:
                _demand((len(value) if size is None else size) >= schema[low], f"{where}: {value!r} is below {low}")
            if high in schema:
                _demand((len(value) if size is None else size) <= schema[high], f"{where}: {value!r} is above {high}")
        if "pattern" in schema:
            _demand(re.search(schema["pattern"], value) is not None, f"{where}: {value!r} is not {schema['pattern']}")
        _check_format(value, schema.get("format"), where)
        if isinstance(value, dict):
            self._check_members(value, schema, where)
        if isinstance(value, list):
            for item in value:
                self.check(item, schema["items"], f"{where}[]")

    def _check_members(self, value: dict[str, Any], schema: dict[str, Any], where: str) -> None:
        for name in schema.get("required", ()):
            _demand(name in value, f"{where} has no {name}")
        for name, member in value.items():
            _demand(name in schema["properties"], f"{where} has a {name} that nobody described")
            self.check(member, schema["properties"][name], f"{where}.{name}")


def _size(value: Any) -> int:
    """What the bounds of a schema are about: a number itself, of all else the length."""
    return value if isinstance(value, int) else len(value)


def _check_format(value: Any, name: str | None, where: str) -> None:
    match name:
        case None | "binary":
            pass
        case "int64":
            _demand(-(2**63) <= value < 2**63, f"{where}: {value} has more than 64 bits")
        case "date-time":
            full = re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", value)
            _demand(full is not None, f"{where}: {value!r} is no time of RFC 3339")
            datetime.fromisoformat(value)
        case _:
            raise Broken(f"{where}: the format {name} is not understood")


def _spoken(text: str, kind: str, where: str) -> object:
    """The value that a field or a query spells."""
    match kind:
        case "string":
            return text
        case "integer":
            _demand(re.fullmatch(r"-?[0-9]+", text) is not None, f"{where}: {text!r} is no integer")
            return int(text)
        case "boolean":
            _demand(text in ("true", "false"), f"{where}: {text!r} is no boolean")
            return text == "true"
    raise Broken(f"{where}: nobody knows how to spell {kind}")


def _reach(name: str) -> str:
    """What a variable of a path can stand for; `path` may contain slashes, the description says."""
    return ".+" if name == "path" else "[^/]+"


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)
