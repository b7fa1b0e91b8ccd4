"""The default ServiceCIDR: made again when it goes, ready as long as nobody says otherwise.

Source: k8s v1.36 pkg/controlplane/controller/defaultservicecidr/default_servicecidr_controller.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from kcp.api.cluster_ips import DEFAULT_RANGE, RANGES
from kcp.api.context import Server
from kcp.api.own_writes import apply_status, ensure
from kcp.api.upkeep.own_events import tell
from kcp.apis.kind import Json
from kcp.machinery import meta
from kcp.machinery.times import format_time
from kcp.store.protocol import Key

COMPONENT = "kubernetes-service-cidr-controller"
READY = "Kubernetes default Service CIDR is ready"


def default_range(cidrs: Sequence[str]) -> Json:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": DEFAULT_RANGE},
        "spec": {"cidrs": [*cidrs]},
    }


def second_range(wanted: Json, found: Json) -> Json | None:
    """A cluster of one family that is started with two gets the second; nothing else of the range changes."""
    cidrs, before = wanted["spec"]["cidrs"], found["spec"].get("cidrs") or []
    if len(cidrs) == 2 and before == cidrs[:1]:
        return {**found, "spec": {**found["spec"], "cidrs": cidrs}}
    return None


async def look_after(server: Server, name: str, told: dict[str, str]) -> None:
    """`told` are the faults that were reported, by their reason: each is once."""
    if name != DEFAULT_RANGE:
        return
    wanted = default_range(server.allocator.cidrs)
    await ensure(server, wanted, second_range)
    record = server.store.get(Key(RANGES, "", name))
    if record is not None and not meta.is_deleting(record.value):
        await _settle(server, record.value, wanted, told)


async def _settle(server: Server, found: Json, wanted: Json, told: dict[str, str]) -> None:
    cidrs, before = wanted["spec"]["cidrs"], found["spec"].get("cidrs") or []
    ready = meta.condition(found, "Ready")
    if cidrs != before:
        text = f"The default ServiceCIDR {_go(before)} does not match the controller flag configurations {_go(cidrs)}"
        await _tell_once(server, found, "KubernetesDefaultServiceCIDRInconsistent", text, told)
    elif ready is not None and ready.get("status") == "False":
        text = f"Configuration matches, but {ready.get('message', '')}"
        await _tell_once(server, found, ready.get("reason", ""), text, told)
    elif ready is None or ready.get("status") != "True":
        condition = {
            "type": "Ready",
            "status": "True",
            "message": READY,
            "lastTransitionTime": format_time(server.clock.now()),
        }
        await apply_status(server, found, {"conditions": [condition]}, COMPONENT)


def _go(texts: Sequence[str]) -> str:
    return f"[{' '.join(texts)}]"


async def _tell_once(server: Server, found: Json, reason: str, text: str, told: dict[str, str]) -> None:
    if told.get(reason) != text:
        told[reason] = text
        await tell(server, COMPONENT, found, reason, text)
