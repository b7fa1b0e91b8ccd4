"""The tree of API errors: one class per metav1.Status reason, with Kubernetes' codes and texts.

Raise the class; whoever answers the request turns it into a Status with `status()`. The same tree is what the
client raises after it read a Status from the wire (`from_status`).
Source: k8s v1.36 apimachinery/pkg/api/errors/errors.go, apimachinery/pkg/util/validation/field/errors.go.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal

from kcp.base.values import frozen
from kcp.machinery.gvk import group_resource

FieldErrorType = Literal[
    "Not found",
    "Required value",
    "Duplicate value",
    "Invalid value",
    "Unsupported value",
    "Forbidden",
    "Too long",
    "Too short",
    "Too many",
    "Too few",
    "Internal error",
    "TypeInvalid",
]

_CAUSE_REASON: dict[str, str] = {
    "Not found": "FieldValueNotFound",
    "Required value": "FieldValueRequired",
    "Duplicate value": "FieldValueDuplicate",
    "Invalid value": "FieldValueInvalid",
    "Unsupported value": "FieldValueNotSupported",
    "Forbidden": "FieldValueForbidden",
    "Too long": "FieldValueTooLong",
    "Too short": "FieldValueTooShort",
    "Too many": "FieldValueTooMany",
    "Too few": "FieldValueTooFew",
    "Internal error": "InternalError",
    "TypeInvalid": "FieldValueTypeInvalid",
}
_PRINTS_NO_VALUE = frozenset({"Required value", "Forbidden", "Too long", "Too short", "Internal error"})


OMITTED: Final = object()
"""As the value of a FieldError: print none. Source: k8s v1.36 field.OmitValueType."""

_GO_ESCAPES = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\", '"': '\\"',
}  # fmt: skip


def go_quote(text: str) -> str:
    """A string as Go's %q prints it."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_go_char, text)) + '"'


def _go_char(char: str) -> str:
    if char in _GO_ESCAPES:
        return _GO_ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_GO_HTML = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def _print_value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return go_quote(value)
    if isinstance(value, (int, float)):
        return str(value)
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    return text.translate(_GO_HTML)


@frozen
class FieldError:
    """One fault of one field: prints as `<path>: <type>: <value>: <detail>`."""

    type: FieldErrorType
    field: str
    value: Any
    detail: str

    def body(self) -> str:
        """The text without the path, as a StatusCause carries it."""
        kind = "Invalid value" if self.type == "TypeInvalid" else self.type
        parts: list[str] = [kind]
        if self.type not in _PRINTS_NO_VALUE and self.value is not OMITTED:
            parts.append(_print_value(self.value))
        if self.detail:
            parts.append(self.detail)
        return ": ".join(parts)

    def __str__(self) -> str:
        return f"{self.field}: {self.body()}"

    def cause(self) -> dict[str, str]:
        return {"reason": _CAUSE_REASON[self.type], "message": self.body(), "field": self.field}


def required(field: str, detail: str = "") -> FieldError:
    return FieldError("Required value", field, "", detail)


def invalid(field: str, value: Any, detail: str) -> FieldError:
    return FieldError("Invalid value", field, value, detail)


def duplicate(field: str, value: Any) -> FieldError:
    return FieldError("Duplicate value", field, value, "")


def not_found(field: str, value: Any) -> FieldError:
    return FieldError("Not found", field, value, "")


def forbidden(field: str, detail: str) -> FieldError:
    return FieldError("Forbidden", field, "", detail)


def too_long(field: str, limit: int) -> FieldError:
    """`may not be more than N bytes`. Source: k8s v1.36 field.TooLong."""
    return FieldError("Too long", field, "", f"may not be more than {limit} bytes")


def too_many(field: str, actual: int, limit: int) -> FieldError:
    return FieldError("Too many", field, actual, f"must have at most {limit} item{'' if limit == 1 else 's'}")


def unsupported(field: str, value: Any, supported: Sequence[str]) -> FieldError:
    """`Unsupported value: "x": supported values: "a", "b"`; the values in the order given."""
    detail = "supported values: " + ", ".join(go_quote(s) for s in supported) if supported else ""
    return FieldError("Unsupported value", field, value, detail)


def aggregate(errors: Sequence[FieldError]) -> str:
    """Several errors as one text: in brackets, equal texts once."""
    texts = list(dict.fromkeys(map(str, errors)))
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


class ApiError(Exception):
    """Any failure that a client sees as a metav1.Status.

    `details` holds name, group, kind, uid, causes, retryAfterSeconds as the Status carries them; given empty, they
    show as `{}`, as where Kubernetes answers for the HTTP server.
    """

    code: ClassVar[int] = 500
    reason: ClassVar[str] = ""

    def __init__(self, message: str, *, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = details or {}
        self.has_details = details is not None
        self.metadata: dict[str, Any] = {}

    @property
    def retry_after_s(self) -> int | None:
        value = self.details.get("retryAfterSeconds")
        return value if isinstance(value, int) else None

    def has_cause(self, reason: str) -> bool:
        return any(cause.get("reason") == reason for cause in self.details.get("causes", ()))

    def status(self) -> dict[str, Any]:
        """The metav1.Status of this error."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details or self.has_details:
            status["details"] = self.details
        status["code"] = self.code
        return status


def _named(group: str, resource: str, name: str) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name, "group": group, "kind": resource}
    return {key: value for key, value in details.items() if value}


class BadRequest(ApiError):
    """Raised when the request itself cannot be understood."""

    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    """Raised when no authenticator accepts the credentials."""

    code, reason = 401, "Unauthorized"

    def __init__(self, message: str = "Unauthorized", *, details: dict[str, Any] | None = None) -> None:
        super().__init__(message, details=details)


class Forbidden(ApiError):
    """Raised when the request is understood and refused."""

    code, reason = 403, "Forbidden"

    @classmethod
    def of(cls, group: str, resource: str, name: str, why: str) -> Forbidden:
        what = group_resource(group, resource)
        if not what:
            message = f"forbidden: {why}"
        elif name:
            message = f"{what} {go_quote(name)} is forbidden: {why}"
        else:
            message = f"{what} is forbidden: {why}"
        return cls(message, details=_named(group, resource, name))


class NotFound(ApiError):
    """Raised when the object, or the resource itself, does not exist."""

    code, reason = 404, "NotFound"

    @classmethod
    def of(cls, group: str, resource: str, name: str) -> NotFound:
        message = f"{group_resource(group, resource)} {go_quote(name)} not found"
        return cls(message, details=_named(group, resource, name))

    @classmethod
    def path(cls) -> NotFound:
        """For a path that no API serves; kubectl prints exactly this text."""
        return cls("the server could not find the requested resource", details={})


class MethodNotAllowed(ApiError):
    """Raised when the resource does not support the verb."""

    code, reason = 405, "MethodNotAllowed"

    @classmethod
    def of(cls, group: str, resource: str, verb: str) -> MethodNotAllowed:
        message = f"{verb} is not supported on resources of kind {go_quote(group_resource(group, resource))}"
        return cls(message, details=_named(group, resource, ""))

    @classmethod
    def http(cls) -> MethodNotAllowed:
        return cls("the server does not allow this method on the requested resource", details={})


class NotAcceptable(ApiError):
    """Raised when no representation that the client accepts exists."""

    code, reason = 406, "NotAcceptable"


class Conflict(ApiError):
    """Raised when a precondition (resourceVersion, uid, field ownership) does not hold."""

    code, reason = 409, "Conflict"

    MODIFIED: ClassVar[str] = (
        "the object has been modified; please apply your changes to the latest version and try again"
    )

    @classmethod
    def of(cls, group: str, resource: str, name: str, why: str = MODIFIED) -> Conflict:
        message = (
            f"Operation cannot be fulfilled on {group_resource(group, resource)} {go_quote(name)}: {why}"
        )
        return cls(message, details=_named(group, resource, name))


class AlreadyExists(ApiError):
    """Raised when a create meets an object of that name."""

    code, reason = 409, "AlreadyExists"

    @classmethod
    def of(cls, group: str, resource: str, name: str) -> AlreadyExists:
        message = f"{group_resource(group, resource)} {go_quote(name)} already exists"
        return cls(message, details=_named(group, resource, name))


class Gone(ApiError):
    """Raised when the data is no longer there."""

    code, reason = 410, "Gone"


class Expired(ApiError):
    """Raised when a resourceVersion or continue token lies beyond the horizon of the API."""

    code, reason = 410, "Expired"


class RequestEntityTooLarge(ApiError):
    """Raised when a body or an object exceeds its limit."""

    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    """Raised when the body is of a type the verb does not take."""

    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    """Raised when an object breaks the rules of its kind."""

    code, reason = 422, "Invalid"

    @classmethod
    def of(cls, group: str, kind: str, name: str, errors: Sequence[FieldError]) -> Invalid:
        """`Pod "x" is invalid: …`; several errors are put in brackets, equal texts appear once."""
        qualified = f"{kind}.{group}" if group else kind
        message = f"{qualified} {go_quote(name)} is invalid: {aggregate(errors)}"
        details = _named(group, kind, name)
        details["causes"] = [error.cause() for error in errors]
        return cls(message, details=details)


class TooManyRequests(ApiError):
    """Raised when the server sheds load, or a disruption budget forbids an eviction."""

    code, reason = 429, "TooManyRequests"

    def __init__(
        self, message: str, retry_after_s: int = 1, *, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message, details={"retryAfterSeconds": retry_after_s, **(details or {})})


class InternalError(ApiError):
    """Raised when the server itself failed."""

    code, reason = 500, "InternalError"

    def __init__(self, why: str, *, details: dict[str, Any] | None = None) -> None:
        super().__init__(f"Internal error occurred: {why}", details=details or {"causes": [{"message": why}]})


class ServerTimeout(ApiError):
    """Raised when the server knows that the client should try again."""

    code, reason = 500, "ServerTimeout"


class ServiceUnavailable(ApiError):
    """Raised when the server, or a part of it that the request needs, is not ready."""

    code, reason = 503, "ServiceUnavailable"


class Timeout(ApiError):
    """Raised when the deadline of the request passed."""

    code, reason = 504, "Timeout"

    @classmethod
    def too_large_resource_version(cls, asked: int, current: int) -> Timeout:
        message = f"Timeout: Too large resource version: {asked}, current: {current}"
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        return cls(message, details={"causes": [cause], "retryAfterSeconds": 1})


class UnknownStatus(ApiError):
    """Raised by the client for a Status of no known reason."""


_BY_REASON: dict[str, type[ApiError]] = {
    cls.reason: cls
    for cls in (
        BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, Conflict, AlreadyExists,
        Gone, Expired, RequestEntityTooLarge, UnsupportedMediaType, Invalid, TooManyRequests, InternalError,
        ServerTimeout, ServiceUnavailable, Timeout,
    )
}  # fmt: skip
_BY_CODE: dict[int, type[ApiError]] = {
    400: BadRequest, 401: Unauthorized, 403: Forbidden, 404: NotFound, 405: MethodNotAllowed, 406: NotAcceptable,
    409: Conflict, 410: Gone, 413: RequestEntityTooLarge, 415: UnsupportedMediaType, 422: Invalid,
    429: TooManyRequests, 500: InternalError, 503: ServiceUnavailable, 504: Timeout,
}  # fmt: skip


def from_status(status: dict[str, Any], code: int = 0) -> ApiError:
    """The error that a metav1.Status describes; `code` is the HTTP status, for a body without one."""
    code = status.get("code") or code or 500
    cls = _BY_REASON.get(status.get("reason", "")) or _BY_CODE.get(code) or UnknownStatus
    error = cls.__new__(cls)
    Exception.__init__(error, status.get("message", ""))
    error.message = status.get("message", "")
    error.details = status.get("details") or {}
    error.has_details = status.get("details") is not None
    error.metadata = status.get("metadata") or {}
    return error
