"""certificatesigningrequests/approval and /status: conditions with their times.

Source: k8s v1.36 pkg/registry/certificates/certificates/strategy.go.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from kcp.api.registry import STATUS
from kcp.api.transaction import Rules
from kcp.apis.certificates import (
    populate_condition_times,
    prepare_request_approval,
    validate_request_approval,
)
from kcp.apis.kind import Json, Kind

REQUESTS = "certificatesigningrequests.certificates.k8s.io"


def approval_rules(now: Callable[[], datetime]) -> Rules:
    """The rules of /approval; `now` stamps new conditions."""

    def prepare(kind: Kind, new: Json, old: Json) -> None:
        prepare_request_approval(new, old)
        populate_condition_times(new, old, now())

    return Rules(prepare, lambda kind, new, old: validate_request_approval(new, old), raises_generation=False)


def status_rules(now: Callable[[], datetime]) -> Rules:
    """The rules of /status: as for every kind, and new conditions are stamped."""

    def prepare(kind: Kind, new: Json, old: Json) -> None:
        STATUS.prepare(kind, new, old)
        populate_condition_times(new, old, now())

    return Rules(prepare, STATUS.validate, raises_generation=False)
