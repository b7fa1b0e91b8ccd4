from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator

import pytest
import structlog

from kcp.base import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    logs.configure(level="error", stream=sys.stderr)


def test_json_lines_carry_no_secrets_and_no_whole_objects() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    pod = {"kind": "Pod", "metadata": {"name": "web", "namespace": "default"}, "spec": {"x": "very secret"}}
    structlog.get_logger().info(
        "pod bound", pod=pod, token="abc", Authorization="Bearer abc", body=b"1234", revision=7
    )
    line = json.loads(stream.getvalue())
    assert line["event"] == "pod bound"
    assert line["pod"] == "Pod default/web"
    assert (line["token"], line["Authorization"], line["body"]) == (logs.REDACTED, logs.REDACTED, "4 bytes")
    assert (line["revision"], line["level"]) == (7, "info")
    assert "secret" not in stream.getvalue()
    assert "abc" not in stream.getvalue()


def test_exceptions_are_structured_in_json_and_levels_filter() -> None:
    stream = io.StringIO()
    logs.configure("json", "warning", stream)
    log = structlog.get_logger()
    log.info("not shown")
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("failed")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["exception"][0]["exc_type"] == "ValueError"


def test_the_console_form_is_for_people() -> None:
    stream = io.StringIO()
    logs.configure("console", "debug", stream)
    structlog.get_logger().debug("node ready", node={"kind": "Node", "metadata": {"name": "n1"}})
    assert "node ready" in stream.getvalue()
    assert "Node n1" in stream.getvalue()


@pytest.mark.parametrize("format", ["json", "console"])
def test_tracebacks_carry_no_values(format: logs.LogFormat) -> None:
    stream = io.StringIO()
    logs.configure(format, "info", stream)
    value = "".join(["hun", "ter2"])
    try:
        raise ValueError(len(value))
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "ValueError" in stream.getvalue() and "hunter2" not in stream.getvalue()
