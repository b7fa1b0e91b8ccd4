"""Evaluations per second of typical CEL expressions: a CRD's rule, an admission policy's, a device selector, a regex.

    python -m benchmarks.cel [--json FILE]

Each expression is compiled once and evaluated on one object; the second table is what compiling it costs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kcp.machinery.cel.device import compile_selector, device_of
from kcp.machinery.cel.environment import Program, compile, environment
from kcp.machinery.cel.schema_types import openapi_type, schema_type
from kcp.machinery.cel.types import DYN
from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.schema.compile import schema_for

Json = dict[str, Any]
SCHEMA: Json = {
    "type": "object",
    "properties": {name: {"type": "integer"} for name in ("replicas", "minReplicas", "maxReplicas")},
}
POD: Json = {
    "metadata": {"name": "a"},
    "spec": {
        "containers": [{"name": "c", "image": "registry/a", "securityContext": {"privileged": False}}] * 3
    },
}
DEVICE: Json = {
    "attributes": {"model": {"string": "A100"}, "memory": {"int": 80}, "driver": {"version": "1.2.3"}},
    "capacity": {"memory": {"value": "80Gi"}},
}
POLICY = (
    "object.spec.containers.all(c, c.image.startsWith('registry/') && "
    "(!has(c.securityContext) || !has(c.securityContext.privileged) || !c.securityContext.privileged))"
)
SELECTOR = (
    'device.attributes["gpu.example.com"].model == "A100" && '
    'device.capacity["gpu.example.com"].memory.compareTo(quantity("40Gi")) >= 0'
)


def cases() -> list[tuple[str, Callable[[], Program], Json]]:
    """What it is, how to compile it, the variables."""
    custom = environment({"self": openapi_type(SCHEMA) or DYN})
    pod = schema_for(GroupVersionKind("", "v1", "Pod"))
    assert pod is not None
    policy = environment({"object": schema_type(pod, root=True) or DYN})
    text = environment({"self": openapi_type({"type": "string"}) or DYN})
    rule = "self.minReplicas <= self.replicas && self.replicas <= self.maxReplicas"
    return [
        (
            "rule of a CRD",
            lambda: compile(custom, rule),
            {"self": {"replicas": 3, "minReplicas": 1, "maxReplicas": 5}},
        ),
        ("policy over 3 containers", lambda: compile(policy, POLICY), {"object": POD}),
        (
            "device selector",
            lambda: compile_selector(SELECTOR),
            {"device": device_of("gpu.example.com", DEVICE)},
        ),
        (
            "regular expression",
            lambda: compile(text, "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')"),
            {"self": "my-name-12345"},
        ),
    ]


def per_call_us(call: Callable[[], object], seconds: float = 0.5) -> float:
    """Microseconds of one call, after a first one."""
    call()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(100):
            call()
        count += 100
    return (time.perf_counter() - start) / count * 1e6


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    figures: dict[str, Json] = {}
    print(f"{'expression':28}{'us':>8}{'per second':>14}{'compile us':>14}")
    for name, build, variables in cases():
        program = build()
        run, built = per_call_us(lambda: program(variables)), per_call_us(build)  # noqa: B023
        figures[name] = {"evaluate_us": run, "compile_us": built}
        print(f"{name:28}{run:8.2f}{1e6 / run:14,.0f}{built:14.0f}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
