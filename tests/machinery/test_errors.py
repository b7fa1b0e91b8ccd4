"""The error tree: Status objects, texts, and the way back from the wire."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.machinery import errors
from kcp.machinery.errors import FieldError, go_quote


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", '""'),
        ("a b", '"a b"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("\n\t\r\a\b\f\v", r'"\n\t\r\a\b\f\v"'),
        ("\x00\x1f\x7f", r'"\x00\x1f\x7f"'),
        ("é☃😀", '"é☃😀"'),
        ("\u00a0\u2028\ufeff\U000e0001", r'"\u00a0\u2028\ufeff\U000e0001"'),
        ("<&>", '"<&>"'),
    ],
)
def test_strings_are_quoted_as_go_quotes_them(text: str, quoted: str) -> None:
    assert go_quote(text) == quoted


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.required("a.b", "why"), "a.b: Required value: why"),
        (errors.required("a.b"), "a.b: Required value"),
        (errors.invalid("a", "x", "bad"), 'a: Invalid value: "x": bad'),
        (errors.invalid("a", 3, "bad"), "a: Invalid value: 3: bad"),
        (errors.invalid("a", True, ""), "a: Invalid value: true"),
        (errors.invalid("a", None, "bad"), "a: Invalid value: null: bad"),
        (errors.invalid("a", 1.5, "bad"), "a: Invalid value: 1.5: bad"),
        (errors.invalid("a", {"b": [1, "<x>"]}, "bad"), 'a: Invalid value: {"b":[1,"\\u003cx\\u003e"]}: bad'),
        (errors.duplicate("a[1]", "x"), 'a[1]: Duplicate value: "x"'),
        (errors.not_found("a", "x"), 'a: Not found: "x"'),
        (errors.forbidden("a", "no"), "a: Forbidden: no"),
        (errors.too_long("a", 63), "a: Too long: may not be more than 63 bytes"),
        (errors.too_many("a", 3, 2), "a: Too many: 3: must have at most 2 items"),
        (errors.too_many("a", 2, 1), "a: Too many: 2: must have at most 1 item"),
        (errors.unsupported("a", "x", ["B", "A"]), 'a: Unsupported value: "x": supported values: "B", "A"'),
        (FieldError("Internal error", "a", None, "oops"), "a: Internal error: oops"),
        (FieldError("TypeInvalid", "a", "x", "bad"), 'a: Invalid value: "x": bad'),
    ],
)
def test_field_errors(error: FieldError, text: str) -> None:
    assert str(error) == text
    assert error.cause()["message"] == error.body() == text.partition(": ")[2]
    assert error.cause()["field"] == error.field


def test_an_invalid_object_lists_its_faults_and_says_each_once() -> None:
    faults = [errors.required("spec.a"), errors.invalid("spec.b", 1, "bad"), errors.required("spec.a")]
    error = errors.Invalid.of("apps", "Deployment", "web", faults)
    assert error.message == (
        'Deployment.apps "web" is invalid: [spec.a: Required value, spec.b: Invalid value: 1: bad]'
    )
    assert error.status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        "reason": "Invalid",
        "details": {
            "name": "web",
            "group": "apps",
            "kind": "Deployment",
            "causes": [
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.a"},
                {"reason": "FieldValueInvalid", "message": "Invalid value: 1: bad", "field": "spec.b"},
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.a"},
            ],
        },
        "code": 422,
    }
    assert errors.Invalid.of("", "Pod", "", faults[:1]).message == 'Pod "" is invalid: spec.a: Required value'


@pytest.mark.parametrize(
    ("error", "code", "reason", "message"),
    [
        (errors.NotFound.of("apps", "deployments", "web"), 404, "NotFound", 'deployments.apps "web" not found'),
        (errors.NotFound.path(), 404, "NotFound", "the server could not find the requested resource"),
        (errors.AlreadyExists.of("", "pods", "a"), 409, "AlreadyExists", 'pods "a" already exists'),
        (errors.Conflict.of("", "pods", "a"), 409, "Conflict", 'Operation cannot be fulfilled on pods "a": the object has been modified; please apply your changes to the latest version and try again'),
        (errors.Forbidden.of("", "pods", "a", "no"), 403, "Forbidden", 'pods "a" is forbidden: no'),
        (errors.Forbidden.of("", "pods", "", "no"), 403, "Forbidden", "pods is forbidden: no"),
        (errors.Forbidden.of("", "", "", "no"), 403, "Forbidden", "forbidden: no"),
        (errors.Unauthorized(), 401, "Unauthorized", "Unauthorized"),
        (errors.MethodNotAllowed.of("", "pods", "patch"), 405, "MethodNotAllowed", 'patch is not supported on resources of kind "pods"'),
        (errors.MethodNotAllowed.http(), 405, "MethodNotAllowed", "the server does not allow this method on the requested resource"),
        (errors.InternalError("oops"), 500, "InternalError", "Internal error occurred: oops"),
        (errors.TooManyRequests("slow down", 3), 429, "TooManyRequests", "slow down"),
        (errors.Timeout.too_large_resource_version(9, 5), 504, "Timeout", "Timeout: Too large resource version: 9, current: 5"),
        (errors.Expired("gone"), 410, "Expired", "gone"),
    ],
)  # fmt: skip
def test_statuses_and_the_way_back(error: errors.ApiError, code: int, reason: str, message: str) -> None:
    status = error.status()
    assert (status["code"], status["reason"], status["message"]) == (code, reason, message)
    again = errors.from_status(status)
    assert type(again) is type(error)
    assert again.status() == status
    assert str(again) == message


def test_details_of_a_retry() -> None:
    assert errors.TooManyRequests("x", 3).retry_after_s == 3
    assert errors.NotFound.path().retry_after_s is None
    timeout = errors.Timeout.too_large_resource_version(9, 5)
    assert timeout.has_cause("ResourceVersionTooLarge")
    assert not timeout.has_cause("Other")
    assert timeout.retry_after_s == 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        ({"reason": "NotFound"}, 0, errors.NotFound),
        ({"code": 403}, 0, errors.Forbidden),
        ({}, 503, errors.ServiceUnavailable),
        ({"code": 418, "message": "teapot"}, 0, errors.UnknownStatus),
        ({"reason": "NewReason", "code": 409}, 0, errors.Conflict),
        ({}, 0, errors.InternalError),
    ],
)
def test_incomplete_statuses(status: dict[str, Any], code: int, kind: type[errors.ApiError]) -> None:
    error = errors.from_status(status, code)
    assert type(error) is kind
    assert error.message == status.get("message", "")


def test_every_reason_has_one_class_and_a_code_that_leads_back() -> None:
    classes = [c for c in errors.ApiError.__subclasses__() if c.reason]
    assert len({c.reason for c in classes}) == len(classes)
    for cls in classes:
        assert errors.from_status({"reason": cls.reason}).code == cls.code
