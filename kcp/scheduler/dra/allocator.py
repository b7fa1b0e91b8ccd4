"""The search for devices: every request of every claim gets its devices from what one node can reach, or none does.

Requests are served one after the other and for each device the candidates are tried in order, pool by pool; the first
whole solution is taken. A choice that leads nowhere is taken back. The same pools, claims and usage give the same devices.

    Search(claims, pools, usage, classes, selectors).run() -> one list of devices for each claim, or None

Source: k8s v1.36 staging/src/k8s.io/dynamic-resource-allocation/structured/internal/{stable,incubating}.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple

import attrs

from kcp.apis.resource import MAX_RESULTS
from kcp.apis.semantics.resource_claims import tolerates_taint
from kcp.machinery import meta
from kcp.machinery.quantity import Quantity
from kcp.scheduler.dra import capacity
from kcp.scheduler.dra.constraints import Constraint, constraints_of
from kcp.scheduler.dra.devices import Devices
from kcp.scheduler.dra.pools import Device, DeviceId, Pool, PoolId
from kcp.scheduler.dra.selectors import AllocationFailed, Selectors

Json = dict[str, Any]
MAX_STEPS = 50_000
"""A search that took so many steps on one node is given up: Kubernetes gives up after 10 s, but no clock decides here."""
INVALID_POOLS = "invalid resource pools were encountered"
TIMED_OUT = "timed out trying to allocate devices"
_PREVENTING = ("NoSchedule", "NoExecute")


class NotOnThisNode(Exception):
    """Raised when the node cannot be judged; others can. The text is the reason."""


class Position(NamedTuple):
    """Which device of which request is looked for next. `alternative` is -1 until one of `firstAvailable` is tried.

    `start` is the first candidate: of the ways to choose the same devices for one request only the ascending one is tried,
    which is the one that would be found first anyway.
    """

    claim: int
    request: int = 0
    alternative: int = -1
    device: int = 0
    start: int = 0


@attrs.frozen(eq=False)
class Wanted:
    """A request, or one alternative of it. `all` are the devices of a request for all of them, None for a number."""

    name: str
    alternative: str
    spec: Json
    device_class: Json
    count: int
    all: tuple[tuple[Device, Pool], ...] | None = None

    @property
    def admin(self) -> bool:
        return bool(self.spec.get("adminAccess"))

    @property
    def full_name(self) -> str:
        return f"{self.name}/{self.alternative}" if self.alternative else self.name

    @property
    def amounts(self) -> Mapping[str, str]:
        return (self.spec.get("capacity") or {}).get("requests") or {}


def untolerated(spec: Json, device: Device) -> Json | None:
    """A taint of the device that keeps a request of this spec off it."""
    tolerations = spec.get("tolerations") or ()
    for taint in device.object.get("taints") or ():
        if taint.get("effect") in _PREVENTING and not any(tolerates_taint(t, taint) for t in tolerations):
            found: Json = taint
            return found
    return None


@attrs.frozen(eq=False)
class Chosen:
    """One device for one request. `consumed` is what it takes of a device that is shared, else None."""

    wanted: Wanted
    device: Device
    consumed: Mapping[str, Quantity] | None


Steps = Generator[Position, bool, bool]
"""Yields what to look for next with one choice made, and is told whether the limit of results ended that; returns whether
the limit is all that was in the way."""


class Search:
    """One search on one node."""

    def __init__(
        self,
        claims: Sequence[Json],
        pools: Sequence[Pool],
        devices: Devices,
        classes: Mapping[str, Json],
        selectors: Selectors,
    ) -> None:
        self._claims = claims
        self._pools = pools
        self._there = [(device, pool) for pool in pools if pool.usable for device in pool.devices]
        self._devices = devices
        self._classes = classes
        self._selectors = selectors
        self._wanted = [self._requests(claim) for claim in claims]
        self._constraints = [_constraints(claim) for claim in claims]
        self._chosen: list[list[Chosen]] = [[] for _ in claims]
        self._taking: dict[DeviceId, list[int]] = {}
        self._shares: dict[DeviceId, dict[str, Quantity]] = {}
        self._free_counters: dict[PoolId, dict[tuple[str, str], Quantity]] = {}
        self._steps_left = MAX_STEPS

    def run(self) -> list[list[Chosen]] | None:
        """None when there is no solution. Raises NotOnThisNode, AllocationFailed."""
        stack = [self._steps(Position(0))]
        told: bool | None = None
        while stack:
            self._steps_left -= 1
            if self._steps_left < 0:
                raise NotOnThisNode(TIMED_OUT)
            try:
                position = next(stack[-1]) if told is None else stack[-1].send(told)
            except StopIteration as ended:
                stack.pop()
                told = bool(ended.value)
                continue
            if position.claim >= len(self._claims):
                return self._chosen
            stack.append(self._steps(position))
            told = None
        if any(pool.invalid for pool in self._pools):
            raise NotOnThisNode(INVALID_POOLS)
        return None

    # --- what is asked for ---

    def _requests(self, claim: Json) -> list[list[Wanted]]:
        """For each request its alternatives, one unless it is a `firstAvailable`."""
        found = []
        least = 0
        for request in ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ():
            name = request.get("name") or ""
            alternatives = request.get("firstAvailable")
            if alternatives:
                rows = [self._one(claim, name, each.get("name") or "", each) for each in alternatives]
            else:
                rows = [self._one(claim, name, "", request.get("exactly") or {})]
            found.append(rows)
            least += min(row.count for row in rows)
        if least > MAX_RESULTS:
            text = f"number of requested devices {least} exceeds the claim limit of {MAX_RESULTS}"
            raise AllocationFailed(f"claim {meta.key_of(claim)}: {text}")
        return found

    def _one(self, claim: Json, name: str, alternative: str, spec: Json) -> Wanted:
        where = f"claim {meta.key_of(claim)}, request {alternative or name}"
        class_name = spec.get("deviceClassName") or ""
        if not class_name:
            raise AllocationFailed(f"{where}: missing device class name (unsupported request type?)")
        device_class = self._classes.get(class_name)
        if device_class is None:
            missing = f'deviceclass.resource.k8s.io "{class_name}" not found'
            raise AllocationFailed(f"{where}: could not retrieve device class {class_name}: {missing}")
        for number, selector in enumerate(spec.get("selectors") or ()):
            if selector.get("cel") is None:
                text = "CEL expression empty (unsupported selector type?)"
                raise AllocationFailed(f"{where}, selector #{number}: {text}")
        mode = spec.get("allocationMode") or "ExactCount"
        if mode == "ExactCount":
            return Wanted(name, alternative, spec, device_class, int(spec.get("count") or 1))
        if mode != "All":
            raise AllocationFailed(f"{where}: unsupported count mode {mode}")
        every = self._every(claim, spec, device_class, where)
        return Wanted(name, alternative, spec, device_class, len(every), every)

    def _every(
        self, claim: Json, spec: Json, device_class: Json, where: str
    ) -> tuple[tuple[Device, Pool], ...]:
        found = []
        for pool in self._pools:
            if not pool.usable:
                state = "being updated" if pool.incomplete else "invalid"
                text = f"asks for all devices, but resource pool {pool} is currently {state}"
                raise AllocationFailed(f"{where}: {text}")
            found += [(d, pool) for d in pool.devices if self._selectable(claim, spec, device_class, d)]
        return tuple(found)

    def _selectable(self, claim: Json, spec: Json, device_class: Json, device: Device) -> bool:
        of_class = (device_class.get("spec") or {}).get("selectors") or ()
        if of_class and not self._selectors.match(device, of_class, f"class {meta.name(device_class)}"):
            return False
        own = spec.get("selectors") or ()
        return not own or self._selectors.match(device, own, f"claim {meta.key_of(claim)}")

    # --- one step after the other ---

    def _steps(self, at: Position) -> Steps:
        requests = self._wanted[at.claim]
        if at.request >= len(requests):
            return self._next_claim(at)
        if at.alternative < 0:
            return self._alternatives(at, len(requests[at.request]))
        wanted = requests[at.request][at.alternative]
        if wanted.all is not None and not wanted.all:
            return _nothing(False)
        if at.device >= wanted.count:
            return _only(Position(at.claim, at.request + 1))
        if len(self._chosen[at.claim]) + wanted.count - at.device > MAX_RESULTS:
            return _nothing(True)
        return self._candidates(at, wanted)

    def _next_claim(self, at: Position) -> Steps:
        """Another way to serve this claim may leave fewer devices to the next one: the limit there is not final here."""
        yield Position(at.claim + 1)
        return False

    def _alternatives(self, at: Position, count: int) -> Steps:
        only_limit = True
        for alternative in range(count):
            only_limit &= yield at._replace(alternative=alternative)
        return only_limit

    def _candidates(self, at: Position, wanted: Wanted) -> Steps:
        following = at._replace(device=at.device + 1)
        if wanted.all is not None:
            device, pool = wanted.all[at.device]
            if not self._take(at, wanted, device, pool, must=True):
                return False
            limited = yield following
            self._put_back(at, wanted, pool)
            return limited
        claim = self._claims[at.claim]
        for place in range(at.start, len(self._there)):
            device, pool = self._there[place]
            if self._in_use(at.claim, wanted, device):
                continue
            if not self._selectable(claim, wanted.spec, wanted.device_class, device):
                continue
            if not self._take(at, wanted, device, pool, must=False):
                continue
            limited = yield following._replace(start=place)
            self._put_back(at, wanted, pool)
            if limited:
                return True
        return False

    # --- one device ---

    def _in_use(self, claim: int, wanted: Wanted, device: Device) -> bool:
        taking = self._taking.get(device.id)
        if wanted.admin:
            return bool(taking) and claim in (taking or ())
        return device.id in self._devices.dedicated or (bool(taking) and not device.shareable)

    def _take(self, at: Position, wanted: Wanted, device: Device, pool: Pool, *, must: bool) -> bool:
        """Choose the device. `must`: the claim needs this very one."""
        if self._in_use(at.claim, wanted, device):
            return False
        consumed = self._consumption(wanted, device)
        if consumed is None or not self._take_counters(device, pool):
            return False
        if untolerated(wanted.spec, device) is not None or not self._constrain(at, wanted, device, must):
            self._give_counters(device, pool)
            return False
        self._taking.setdefault(device.id, []).append(at.claim)
        share = consumed if device.shareable and not wanted.admin else None
        if share is not None:
            self._add_share(device, share, 1)
        self._chosen[at.claim].append(Chosen(wanted, device, share))
        return True

    def _put_back(self, at: Position, wanted: Wanted, pool: Pool) -> None:
        chosen = self._chosen[at.claim].pop()
        device = chosen.device
        for constraint in self._constraints[at.claim]:
            if constraint.applies(wanted.name, wanted.alternative):
                constraint.remove()
        self._taking[device.id].remove(at.claim)
        if not self._taking[device.id]:
            del self._taking[device.id]
        if chosen.consumed is not None:
            self._add_share(device, chosen.consumed, -1)
        self._give_counters(device, pool)

    def _constrain(self, at: Position, wanted: Wanted, device: Device, must: bool) -> bool:
        added: list[Constraint] = []
        for constraint in self._constraints[at.claim]:
            if not constraint.applies(wanted.name, wanted.alternative):
                continue
            if constraint.add(device):
                added.append(constraint)
                continue
            for earlier in added:
                earlier.remove()
            if must:
                text = f"cannot add device {device} because a claim constraint would not be satisfied"
                where = f"claim {meta.key_of(self._claims[at.claim])}"
                raise AllocationFailed(f"{where}, request {wanted.alternative or wanted.name}: {text}")
            return False
        return True

    # --- parts of devices ---

    def _consumption(self, wanted: Wanted, device: Device) -> Mapping[str, Quantity] | None:
        """What the request takes of the device's capacity; None when that is not there."""
        if not device.shareable and not wanted.amounts:
            return {}
        consumed = capacity.consumed_of(device, wanted.amounts)
        if consumed is None or wanted.admin:
            return consumed
        taken = self._devices.shared.get(device.id, {})
        taking = self._shares.get(device.id, {})
        return consumed if capacity.fits(device, consumed, taken, taking) else None

    def _add_share(self, device: Device, consumed: Mapping[str, Quantity], sign: int) -> None:
        shares = self._shares.setdefault(device.id, {})
        for name, amount in consumed.items():
            before = shares.get(name, Quantity(0))
            shares[name] = before + amount if sign > 0 else before - amount

    def _take_counters(self, device: Device, pool: Pool) -> bool:
        """Whether the pool's shared counters have what the device consumes of them."""
        if not device.consumes:
            return True
        free = self._free_counters.get(pool.id)
        if free is None:
            free = self._free_counters[pool.id] = self._counters_left(pool)
        for key, amount in _consumption(device):
            free[key] = free[key] - amount
        if all(free[key].sign() >= 0 for key in free):
            return True
        self._give_counters(device, pool)
        return False

    def _give_counters(self, device: Device, pool: Pool) -> None:
        if device.consumes:
            free = self._free_counters[pool.id]
            for key, amount in _consumption(device):
                free[key] = free[key] + amount

    def _counters_left(self, pool: Pool) -> dict[tuple[str, str], Quantity]:
        left = {
            (set_name, counter): amount
            for set_name, counters in pool.counters.items()
            for counter, amount in counters.items()
        }
        dedicated = self._devices.dedicated
        shared = self._devices.shared
        for device in (*pool.devices, *pool.elsewhere):
            if device.consumes and (device.id in dedicated or device.id in shared):
                for key, amount in _consumption(device):
                    left[key] = left[key] - amount
        return left


def _consumption(device: Device) -> list[tuple[tuple[str, str], Quantity]]:
    return [
        ((set_name, counter), amount)
        for set_name, counters in device.consumes.items()
        for counter, amount in counters.items()
    ]


def _constraints(claim: Json) -> list[Constraint]:
    found = constraints_of(claim)
    if found is None:
        entries = claim["spec"]["devices"]["constraints"]
        number = next(
            n
            for n, entry in enumerate(entries)
            if entry.get("matchAttribute") is None and entry.get("distinctAttribute") is None
        )
        text = "empty constraint (unsupported constraint type?)"
        raise AllocationFailed(f"claim {meta.key_of(claim)}, constraint #{number}: {text}")
    return found


def _nothing(limited: bool) -> Steps:
    yield from ()
    return limited


def _only(position: Position) -> Steps:
    limited = yield position
    return limited
