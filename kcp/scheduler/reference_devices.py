"""The slow scheduler's way with devices: every choice is judged from scratch, nothing is kept. Part of the oracle.

Source of the rules: k8s v1.36 dynamic-resource-allocation/structured, plugins/dynamicresources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import attrs

from kcp.apis.semantics import affinity
from kcp.apis.semantics.resource_claims import tolerates_taint
from kcp.machinery.quantity import Quantity, parse

Json = dict[str, Any]
ZERO = Quantity(0)
IMPLICIT = "deviceclass.resource.kubernetes.io/"


class Pick(NamedTuple):
    """One device for one request of the claim of that number."""

    claim: int
    request: str
    spec: Json
    pool: tuple[str, str]
    device: Json

    @property
    def id(self) -> tuple[str, str, str]:
        return (*self.pool, self.device["name"])


@attrs.define
class DeviceWorld:
    """`says` is what each selector expression means. Claims have their allocation from the moment it is decided."""

    slices: list[Json] = attrs.field(factory=list)
    classes: dict[str, Json] = attrs.field(factory=dict)
    claims: dict[str, Json] = attrs.field(factory=dict)
    says: Mapping[str, Callable[[str, Json], bool]] = attrs.field(factory=dict)


def claims_of(world: DeviceWorld, pod: Json) -> list[Json]:
    namespace = pod["metadata"]["namespace"]
    entries = pod["spec"].get("resourceClaims") or []
    return [world.claims[f"{namespace}/{entry['resourceClaimName']}"] for entry in entries]


def allocation(claim: Json) -> Json | None:
    found: Json | None = (claim.get("status") or {}).get("allocation")
    return found


# --- extended resources that devices stand behind ---


def serves(world: DeviceWorld, resource: str) -> str:
    """The newest class that says so, the first by name of several; "" for none."""
    found = [
        (made["metadata"].get("creationTimestamp", ""), made["metadata"]["name"])
        for made in world.classes.values()
        if resource in (made["spec"].get("extendedResourceName"), f"{IMPLICIT}{made['metadata']['name']}")
    ]
    newest = max((created for created, _ in found), default="")
    return min((name for created, name in found if created == newest), default="")


def _asked(container: Json) -> dict[str, int]:
    requests = (container.get("resources") or {}).get("requests") or {}
    return {name: parse(amount).value() for name, amount in requests.items()}


def _containers(pod: Json) -> list[tuple[Json, bool]]:
    """(container, whether it ends before others begin), init containers first."""
    spec = pod["spec"]
    first = [(c, c.get("restartPolicy") != "Always") for c in spec.get("initContainers") or []]
    return [*first, *((c, False) for c in spec["containers"])]


def needs_devices(world: DeviceWorld, pod: Json) -> bool:
    """Whether the pod asks for a resource that a class serves."""
    return any(
        amount and serves(world, name)
        for container, _ in _containers(pod)
        for name, amount in _asked(container).items()
    )


def special_claim(world: DeviceWorld, pod: Json, node: Json) -> Json | None:
    """What the pod asks for that this node gives by devices only."""
    offered = node["status"]["allocatable"]
    containers = _containers(pod)
    names = sorted({name for c, _ in containers for name, amount in _asked(c).items() if amount})
    requests = []
    for name in names:
        if not serves(world, name) or parse(offered.get(name, "0")):
            continue
        wanted = [_asked(c).get(name, 0) for c, _ in containers]
        beside = [
            wanted[i] - sum(wanted[j] for j in range(i, len(wanted)) if not containers[j][1])
            for i in range(len(wanted))
        ]
        most = max((n for n, (_, ends) in zip(beside, containers, strict=True) if ends), default=0)
        for i, (container, ends) in enumerate(containers):
            count = beside[i] if ends and beside[i] == most else 0 if ends else wanted[i]
            if count > 0:
                requests.append(_by_count(i, container, name, serves(world, name), count))
                most = 0 if ends else most
    requests.sort(key=lambda request: str(request["name"]))
    return {"metadata": {}, "spec": {"devices": {"requests": requests}}} if requests else None


def _by_count(index: int, container: Json, resource: str, class_name: str, count: int) -> Json:
    place = sorted(container["resources"]["requests"]).index(resource)
    exactly = {"deviceClassName": class_name, "allocationMode": "ExactCount", "count": count}
    return {"name": f"container-{index}-request-{place}", "exactly": exactly}


def waiting_claims(world: DeviceWorld, pod: Json, node: Json) -> list[Json]:
    """Those that need devices if the pod goes to this node."""
    waiting = [claim for claim in claims_of(world, pod) if allocation(claim) is None]
    special = special_claim(world, pod, node)
    return [*waiting, special] if special is not None else waiting


def refusal(world: DeviceWorld, pod: Json, node: Json) -> list[str]:
    """Why the pod cannot have its devices on this node."""
    claims = claims_of(world, pod)
    waiting = waiting_claims(world, pod, node)
    if waiting and picks(world, waiting, node) is None:
        invalid = any(pool[3] for pool in pools(world, node))
        return ["invalid resource pools were encountered" if invalid else "cannot allocate all claims"]
    name, labels = node["metadata"]["name"], node["metadata"].get("labels") or {}
    for claim in claims:
        selector = (allocation(claim) or {}).get("nodeSelector")
        if not affinity.node_selector_matches(selector, labels, name):
            return ["resourceclaim not available on the node"]
    return []


def post_filter(
    world: DeviceWorld, pod: Json, nodes: Sequence[Json], failures: Mapping[str, tuple[str, tuple[str, ...]]]
) -> str:
    """Whether one of the pod's claims can be freed: one that a node, asked about it, did not suit."""
    claims = claims_of(world, pod)
    if not claims and not needs_devices(world, pod):
        return "no new claims to deallocate"
    unsuited = ("DynamicResources", ("resourceclaim not available on the node",))
    blamed = [node for node in nodes if failures[node["metadata"]["name"]] == unsuited]
    for claim in claims:
        selector = (allocation(claim) or {}).get("nodeSelector")
        reserved = [
            c
            for c in (claim.get("status") or {}).get("reservedFor") or []
            if c["uid"] != pod["metadata"]["uid"]
        ]
        elsewhere = [
            node
            for node in blamed
            if not affinity.node_selector_matches(
                selector, node["metadata"].get("labels") or {}, node["metadata"]["name"]
            )
        ]
        if elsewhere and not reserved:
            return "deallocation of ResourceClaim completed"
    return "still not schedulable"


def rank(world: DeviceWorld, pod: Json, node: Json) -> int:
    """Eight for the first alternative of a list, seven for the second …"""
    waiting = waiting_claims(world, pod, node)
    found = picks(world, waiting, node) or []
    score = 0
    for number, claim in enumerate(waiting):
        served = [pick.request for pick in found if pick.claim == number]
        for request in claim["spec"]["devices"]["requests"]:
            names = [f"{request['name']}/{a['name']}" for a in request.get("firstAvailable") or []]
            score += sum(8 - place for place, name in enumerate(names) if name in served)
    return score


def scores(world: DeviceWorld, pod: Json, feasible: Sequence[Json]) -> list[int]:
    raw = [rank(world, pod, node) for node in feasible]
    most = max(raw)
    return [100 * r // most if most else 0 for r in raw]


# --- pools ---


def _reaches(holder: Json, node: Json) -> bool:
    name, labels = node["metadata"]["name"], node["metadata"].get("labels") or {}
    if "nodeName" in holder:
        return bool(holder["nodeName"] == name)
    if holder.get("allNodes"):
        return True
    return "nodeSelector" in holder and affinity.node_selector_matches(holder["nodeSelector"], labels, name)


def _devices(found: Json) -> list[Json]:
    return found["spec"].get("devices") or []


def _slice_reaches(found: Json, node: Json) -> bool:
    spec = found["spec"]
    if "sharedCounters" in spec:
        return True
    if spec.get("perDeviceNodeSelection"):
        return any(_reaches(device, node) for device in _devices(found))
    return _reaches(spec, node)


def pools(world: DeviceWorld, node: Json) -> list[tuple[tuple[str, str], list[Json], list[Json], str]]:
    """(driver and pool, slices for the node, all slices of the generation, what is wrong) by name."""
    ids = sorted({(s["spec"]["driver"], s["spec"]["pool"]["name"]) for s in world.slices})
    found = []
    for pool_id in ids:
        every = [s for s in world.slices if (s["spec"]["driver"], s["spec"]["pool"]["name"]) == pool_id]
        every.sort(key=lambda s: s["metadata"]["name"])
        here = [s for s in every if _slice_reaches(s, node)]
        if not here:
            continue
        newest = max(s["spec"]["pool"]["generation"] for s in here)
        here = [s for s in here if s["spec"]["pool"]["generation"] == newest]
        same = [s for s in every if s["spec"]["pool"]["generation"] == newest]
        count = here[0]["spec"]["pool"]["resourceSliceCount"]
        if len(here) != count:
            if any(s["spec"]["pool"]["generation"] > newest for s in every):
                continue
            if len(same) != count:
                continue
        names = [device["name"] for s in here for device in _devices(s)]
        found.append((pool_id, here, same, "twice" if len(set(names)) < len(names) else ""))
    return found


# --- the search ---


def picks(world: DeviceWorld, claims: Sequence[Json], node: Json) -> list[Pick] | None:
    """The first way to serve every request of every claim, None when there is none."""
    there = [pool for pool in pools(world, node) if not pool[3]]
    work = [
        (number, request)
        for number, claim in enumerate(claims)
        for request in claim["spec"]["devices"]["requests"]
    ]

    def serve(left: Sequence[tuple[int, Json]], done: list[Pick]) -> list[Pick] | None:
        if not left:
            return done
        (number, request), rest = left[0], left[1:]
        for name, spec in _alternatives(request):
            everything = list(_candidates(world, there, node, number, name, spec))
            if spec.get("allocationMode") == "All":
                answer = _serve_all(everything, done)
                found = serve(rest, answer) if answer is not None else None
            else:
                found = serve_some(everything, spec["count"], rest, done)
            if found is not None:
                return found
        return None

    def serve_some(
        everything: Sequence[Pick], count: int, rest: Sequence[tuple[int, Json]], done: list[Pick]
    ) -> list[Pick] | None:
        if count == 0:
            return serve(rest, done)
        for pick in everything:
            if allowed([*done, pick]):
                found = serve_some(everything, count - 1, rest, [*done, pick])
                if found is not None:
                    return found
        return None

    def _serve_all(everything: Sequence[Pick], done: list[Pick]) -> list[Pick] | None:
        for pick in everything:
            if not allowed([*done, pick]):
                return None
            done = [*done, pick]
        return done if everything else None

    def allowed(chosen: list[Pick]) -> bool:
        return _last_is_free(world, chosen) and _has_room(world, there, chosen) and _agrees(claims, chosen)

    return serve(work, [])


def _alternatives(request: Json) -> Iterator[tuple[str, Json]]:
    if "exactly" in request:
        yield request["name"], request["exactly"]
    for alternative in request.get("firstAvailable") or []:
        yield f"{request['name']}/{alternative['name']}", alternative


def _candidates(
    world: DeviceWorld, there: Sequence[Any], node: Json, number: int, name: str, spec: Json
) -> Iterator[Pick]:
    """The devices that the selectors choose."""
    of_class = world.classes[spec["deviceClassName"]]["spec"].get("selectors") or []
    for pool_id, here, _, _ in there:
        for found in here:
            for device in _devices(found):
                if found["spec"].get("perDeviceNodeSelection") and not _reaches(device, node):
                    continue
                selectors = [*of_class, *(spec.get("selectors") or [])]
                if all(world.says[s["cel"]["expression"]](pool_id[0], device) for s in selectors):
                    yield Pick(number, name, spec, pool_id, device)


def _taken(world: DeviceWorld) -> Iterator[Json]:
    for claim in world.claims.values():
        for result in ((allocation(claim) or {}).get("devices") or {}).get("results") or []:
            if not result.get("adminAccess"):
                yield result


def _last_is_free(world: DeviceWorld, chosen: list[Pick]) -> bool:
    """Nobody has it alone, the claim itself does not have it yet, and the request tolerates its taints."""
    *before, last = chosen
    admin = bool(last.spec.get("adminAccess"))
    mine = [pick for pick in before if pick.id == last.id]
    shares = bool(last.device.get("allowMultipleAllocations"))
    if admin:
        if any(pick.claim == last.claim for pick in mine):
            return False
    else:
        alone = [r for r in _taken(world) if (r["driver"], r["pool"], r["device"]) == last.id]
        if any("shareID" not in result for result in alone) or (mine and not shares):
            return False
    for taint in last.device.get("taints") or []:
        tolerated = any(tolerates_taint(t, taint) for t in last.spec.get("tolerations") or [])
        if taint["effect"] in ("NoSchedule", "NoExecute") and not tolerated:
            return False
    return True


def consumed(pick: Pick) -> dict[str, Quantity] | None:
    """What the request takes of the device's capacity, rounded up as the device wants it; None: it cannot."""
    capacities = pick.device.get("capacity") or {}
    asked = (pick.spec.get("capacity") or {}).get("requests") or {}
    if any(name not in capacities for name in asked):
        return None
    found = {}
    for name, capacity in capacities.items():
        policy = capacity.get("requestPolicy") or {}
        if name not in asked:
            found[name] = parse(policy.get("default", capacity["value"]))
            continue
        amount = parse(asked[name])
        if "validValues" in policy:
            large = [parse(value) for value in policy["validValues"] if parse(value) >= amount]
            if not large:
                return None
            amount = min(large)
        elif "validRange" in policy:
            bounds = policy["validRange"]
            at = parse(bounds["min"])
            while "step" in bounds and at < amount:
                at = at + parse(bounds["step"])
            amount = at if "step" in bounds else max(at, amount)
            if "max" in bounds and amount > parse(bounds["max"]):
                return None
        found[name] = amount
    return found


def _has_room(world: DeviceWorld, there: Sequence[Any], chosen: list[Pick]) -> bool:
    """Capacity of the last device, and counters of its pool, with all that is taken and chosen."""
    last = chosen[-1]
    shares = bool(last.device.get("allowMultipleAllocations"))
    takes = consumed(last) if shares or (last.spec.get("capacity") or {}).get("requests") else {}
    if takes is None:
        return False
    if not last.spec.get("adminAccess"):
        for name, amount in takes.items():
            if amount + _used(world, chosen[:-1], last, name) > parse(last.device["capacity"][name]["value"]):
                return False
    return not last.device.get("consumesCounters") or _counters_suffice(world, there, chosen)


def _used(world: DeviceWorld, before: Sequence[Pick], last: Pick, capacity: str) -> Quantity:
    total = ZERO
    for result in _taken(world):
        if (result["driver"], result["pool"], result["device"]) == last.id and "shareID" in result:
            total = total + parse(result.get("consumedCapacity", {}).get(capacity, "0"))
    for pick in before:
        if pick.id == last.id and not pick.spec.get("adminAccess"):
            total = total + (consumed(pick) or {}).get(capacity, ZERO)
    return total


def _counters_suffice(world: DeviceWorld, there: Sequence[Any], chosen: list[Pick]) -> bool:
    last = chosen[-1]
    same = next(same for pool_id, _, same, _ in there if pool_id == last.pool)
    left = {
        (counter_set["name"], name): parse(counter["value"])
        for found in same
        for counter_set in found["spec"].get("sharedCounters") or []
        for name, counter in counter_set["counters"].items()
    }
    held = {(r["driver"], r["pool"], r["device"]) for r in _taken(world)}
    devices = [d for found in same for d in _devices(found) if (*last.pool, d["name"]) in held]
    devices += [pick.device for pick in chosen if pick.pool == last.pool]
    for device in devices:
        for entry in device.get("consumesCounters") or []:
            for name, counter in entry["counters"].items():
                key = (entry["counterSet"], name)
                left[key] = left[key] - parse(counter["value"])
    return all(amount >= ZERO for amount in left.values())


def _attribute(pick: Pick, name: str) -> Any:
    attributes = pick.device.get("attributes") or {}
    domain, _, short = name.partition("/")
    found = attributes.get(name) or (attributes.get(short) if domain == pick.pool[0] else None)
    return found and tuple(found.items())


def _agrees(claims: Sequence[Json], chosen: list[Pick]) -> bool:
    last = chosen[-1]
    for constraint in claims[last.claim]["spec"]["devices"].get("constraints") or []:
        names = constraint.get("requests") or []

        def meant(pick: Pick, names: list[str] = names) -> bool:
            return not names or pick.request in names or pick.request.split("/")[0] in names

        name = constraint.get("matchAttribute") or constraint.get("distinctAttribute")
        values = [_attribute(p, name) for p in chosen if p.claim == last.claim and meant(p)]
        if not meant(last):
            continue
        if None in values:
            return False
        if "matchAttribute" in constraint and len(set(values)) > 1:
            return False
        if "distinctAttribute" in constraint and len(set(values)) < len(values):
            return False
    return True
