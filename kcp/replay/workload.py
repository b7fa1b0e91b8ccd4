"""A simulated user: a script of operations made from a seed before anything runs, so that it can be cut short.

    12.40 s  scale         {"name": "web-1", "namespace": "default", "replicas": 5}

Each seed has interests of its own (rollouts, jobs, volumes, …) and a pace: a user who does everything at once rarely
gets far enough with anything. An operation that finds nothing to act on does nothing: a script stays a script when
operations are left out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import attrs

from kcp.base.entropy import Entropy, SeededEntropy
from kcp.base.values import frozen
from kcp.client.client import Client
from kcp.machinery.errors import ApiError, NotFound
from kcp.replay.device_verbs import enough_devices
from kcp.replay.manifests import REGISTRY
from kcp.replay.verbs import CRONJOBS, DEPLOYMENTS, JOBS, QUOTAS, VERBS, untaint

Json = dict[str, Any]
OPERATION_TIMEOUT_S = 30.0
PACES_S = (12.0, 24.0, 40.0)
"""The longest pause between two operations; a third of them follow at once."""
NAMESPACES = 3


@frozen
class Operation:
    at_s: float
    verb: str
    args: Mapping[str, Any]

    def as_json(self) -> Json:
        return {"at_s": self.at_s, "verb": self.verb, "args": dict(self.args)}


def script(seed: int, duration_s: float, nodes: int = 3) -> tuple[Operation, ...]:
    """What the user of this seed does within `duration_s`."""
    entropy = SeededEntropy(seed, "user")
    writer = _Writer(entropy, nodes)
    pace_s = PACES_S[entropy.below(len(PACES_S))]
    verbs = _weighted((*interests(entropy), *_more(seed)))
    operations: list[Operation] = []
    at_s = 0.0
    while True:
        at_s = round(at_s + entropy.uniform(0.0, 0.2 if entropy.below(3) == 0 else pace_s), 3)
        if at_s >= duration_s:
            return tuple(operations)
        verb, args = writer.next(verbs)
        operations.append(Operation(at_s, verb, args))


def _more(seed: int) -> tuple[str, ...]:
    """An interest that came later: the scripts of seeds without it are what they were."""
    return (DEVICES,) if SeededEntropy(seed, DEVICES).below(4) == 0 else ()


def interests(entropy: Entropy) -> tuple[str, ...]:
    """One to three of them, besides what every user does."""
    names = [name for name in INTERESTS if name not in (EVERYBODY, DEVICES)]
    entropy.shuffle(names)
    return (EVERYBODY, *names[: 1 + entropy.below(3)])


def _weighted(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(verb for name in names for verb, weight in INTERESTS[name] for _ in range(weight))


@attrs.define
class _Writer:
    """Knows what the script has made so far, so that most operations find their target."""

    entropy: Entropy
    nodes: int
    made: dict[str, list[Json]] = attrs.field(factory=dict)
    """By the verb that makes it: what tells it apart."""
    namespaces: list[str] = attrs.field(factory=lambda: ["default"])
    numbers: int = 0

    def next(self, verbs: Sequence[str]) -> tuple[str, Json]:
        verb = self._of(verbs)
        maker = _NEEDS.get(verb)
        if maker is not None and not self.made.get(maker):
            verb = maker
        return verb, _ARGUMENTS[verb](self)

    def _of(self, items: Sequence[Any]) -> Any:
        return items[self.entropy.below(len(items))]

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def new(self, verb: str, prefix: str, names: int, **more: Any) -> Json:
        """A name, one of few, in a namespace."""
        place = {"namespace": self._of(self.namespaces), "name": f"{prefix}-{self.entropy.below(names)}"}
        return {**self._note(verb, place), **more}

    def new_cluster_wide(self, verb: str, prefix: str, names: int, **more: Any) -> Json:
        return {**self._note(verb, {"name": f"{prefix}-{self.entropy.below(names)}"}), **more}

    def _note(self, verb: str, place: Json) -> Json:
        made = self.made.setdefault(verb, [])
        if place not in made:
            made.append(place)
        return place

    def one(self, verb: str, **more: Any) -> Json:
        return {**self._of(self.made[verb]), **more}

    def below(self, n: int) -> int:
        return self.entropy.below(n)

    def pick(self) -> Json:
        return {"index": self.entropy.below(1000)}

    def node(self, **more: Any) -> Json:
        return {"node": self.entropy.below(max(1, self.nodes)), **more}

    def image(self) -> str:
        return f"{REGISTRY}/app:{self.entropy.below(4)}"

    def propagation(self) -> str:
        return str(self._of(("Background", "Foreground", "Orphan")))

    def deployment(self) -> Json:
        place = self.new("create-deployment", "web", 6)
        surge, unavailable = self._of(_BOUNDS)
        return {
            **place,
            "replicas": self.below(7),
            "surge": surge,
            "unavailable": unavailable,
            "recreate": self.below(6) == 0,
            "tolerate_s": self._of((None, None, 45)),
        }

    def stateful_set(self) -> Json:
        place = self.new("create-statefulset", "db", 3)
        return {
            **place,
            "replicas": self.below(5),
            "parallel": self.below(3) == 0,
            "claims": place["name"] == "db-1",  # pods without claims cannot be adopted by a set with claims
            "partition": self._of((0, 0, 0, 1)),
        }

    def job(self) -> Json:
        return {
            **self.new("create-job", "job", 8),
            "command": self._of(_COMMANDS),
            "completions": 1 + self.below(5),
            "parallelism": 1 + self.below(3),
            "indexed": self.below(2) == 0,
            "backoff_limit": self.below(3),
            "ttl_s": self._of((None, 10, 60)),
        }

    def pod(self) -> Json:
        claims = self.made.get("create-claim", [])
        own = self._of(claims) if claims and self.below(2) == 0 else None
        return {
            "namespace": own["namespace"] if own else self._of(self.namespaces),
            "name": f"pod-{self.number()}",
            "command": self._of(_COMMANDS),
            "restart": self._of(("Always", "OnFailure", "Never")),
            "claim": own["name"] if own else "",
            "ephemeral": self.below(4) == 0,
        }

    def device_pod(self) -> Json:
        """Several pods may want one claim."""
        claim = self._of(self.made["create-device-claim"])
        command = self._of(("sleep 20", "sleep 90", "exit 0"))
        name = f"gpu-pod-{self.number()}"
        return {"namespace": claim["namespace"], "name": name, "command": command, "claim": claim["name"]}

    def new_namespace(self) -> Json:
        name = f"team-{self.below(NAMESPACES)}"
        if name not in self.namespaces:
            self.namespaces.append(name)
        return {"name": name}


_BOUNDS = (("25%", "25%"), (1, 0), (0, 1), ("100%", 0), (2, 1))
_COMMANDS = ("sleep 5", "sleep 20", "sleep 90", "exit 0", "exit 1", "sleep 10; exit 3")
EVERYBODY, DEVICES = "rollouts", "devices"
INTERESTS: Mapping[str, tuple[tuple[str, int], ...]] = {
    EVERYBODY: (
        ("create-deployment", 8),
        ("scale", 8),
        ("set-image", 8),
        ("pause", 1),
        ("resume", 2),
        ("delete-deployment", 3),
        ("create-service", 3),
        ("delete-service", 1),
        ("create-namespace", 2),
        ("delete-namespace", 1),
        ("delete-pod", 4),
        ("release-pod", 1),
        ("delete-replicaset", 1),
        ("owned-config", 2),
        ("taint-node", 2),
        ("untaint-node", 3),
        ("label-node", 1),
    ),
    "sets": (
        ("create-statefulset", 12),
        ("scale-statefulset", 12),
        ("update-statefulset", 10),
        ("delete-statefulset", 4),
        ("force-delete-pod", 2),
    ),
    "daemons": (
        ("create-daemonset", 8),
        ("update-daemonset", 10),
        ("delete-daemonset", 4),
        ("taint-node", 4),
        ("untaint-node", 6),
        ("label-node", 4),
    ),
    "jobs": (
        ("create-job", 20),
        ("suspend-job", 4),
        ("resume-job", 6),
        ("delete-job", 5),
        ("create-cronjob", 4),
        ("suspend-cronjob", 1),
        ("delete-cronjob", 2),
        ("delete-pod", 6),
    ),
    "budgets": (
        ("create-budget", 8),
        ("delete-budget", 2),
        ("evict-pod", 20),
        ("create-controller", 6),
        ("scale-controller", 6),
        ("delete-controller", 3),
    ),
    "quotas": (
        ("create-quota", 8),
        ("set-quota", 5),
        ("delete-quota", 2),
        ("create-config", 12),
        ("delete-config", 5),
        ("create-namespace", 4),
        ("delete-namespace", 2),
    ),
    "volumes": (
        ("create-claim", 12),
        ("delete-claim", 6),
        ("create-volume", 8),
        ("delete-volume", 3),
        ("create-pod", 14),
        ("delete-pod", 6),
        ("create-statefulset", 4),
        ("delete-statefulset", 2),
    ),
    "owners": (
        ("create-config", 12),
        ("own-in-a-circle", 8),
        ("delete-config", 8),
        ("owned-config", 8),
        ("create-controller", 4),
        ("delete-controller", 4),
        ("delete-deployment", 4),
        ("create-namespace", 3),
        ("delete-namespace", 2),
    ),
    "services": (
        ("create-endpoints", 8),
        ("set-endpoints", 8),
        ("delete-slice", 4),
        ("create-service", 8),
        ("delete-service", 6),
        ("create-cidr", 3),
        ("delete-cidr", 3),
    ),
    "accounts": (
        ("create-account", 8),
        ("delete-account", 5),
        ("create-role", 6),
        ("aggregate-roles", 3),
        ("delete-role", 4),
        ("request-certificate", 8),
        ("approve-certificate", 8),
        ("create-namespace", 3),
        ("delete-namespace", 2),
    ),
    DEVICES: (
        ("publish-devices", 10),
        ("withdraw-devices", 2),
        ("taint-devices", 4),
        ("create-device-set", 8),
        ("scale-device-set", 6),
        ("create-device-claim", 6),
        ("delete-device-claim", 2),
        ("create-device-pod", 12),
        ("delete-pod", 8),
    ),
}
_CIDRS = ("10.97.0.0/24", "10.98.0.0/24", "10.99.0.0/24")
_ARGUMENTS: Mapping[str, Callable[[_Writer], Json]] = {
    "create-deployment": _Writer.deployment,
    "scale": lambda w: w.one("create-deployment", replicas=w.below(10)),
    "set-image": lambda w: w.one("create-deployment", image=w.image()),
    "pause": lambda w: w.one("create-deployment"),
    "resume": lambda w: w.one("create-deployment"),
    "delete-deployment": lambda w: w.one("create-deployment", propagation=w.propagation()),
    "create-service": lambda w: w.one("create-deployment"),
    "delete-service": lambda w: w.one("create-deployment"),
    "create-endpoints": lambda w: w.new("create-endpoints", "outside", 3, addresses=w.below(4)),
    "set-endpoints": lambda w: w.one("create-endpoints", addresses=w.below(4)),
    "delete-slice": _Writer.pick,
    "create-namespace": _Writer.new_namespace,
    "delete-namespace": lambda w: {"name": f"team-{w.below(NAMESPACES)}"},
    "delete-pod": _Writer.pick,
    "force-delete-pod": _Writer.pick,
    "release-pod": _Writer.pick,
    "evict-pod": _Writer.pick,
    "delete-replicaset": _Writer.pick,
    "create-controller": lambda w: w.new("create-controller", "old", 3, replicas=w.below(5)),
    "scale-controller": lambda w: w.one("create-controller", replicas=w.below(6)),
    "delete-controller": lambda w: w.one("create-controller", propagation=w.propagation()),
    "create-statefulset": _Writer.stateful_set,
    "scale-statefulset": lambda w: w.one("create-statefulset", replicas=w.below(6)),
    "update-statefulset": lambda w: w.one("create-statefulset", image=w.image()),
    "delete-statefulset": lambda w: w.one("create-statefulset", propagation=w.propagation()),
    "create-daemonset": lambda w: w.new("create-daemonset", "agent", 2, surge=w.below(2)),
    "update-daemonset": lambda w: w.one("create-daemonset", image=w.image()),
    "delete-daemonset": lambda w: w.one("create-daemonset", propagation=w.propagation()),
    "create-job": _Writer.job,
    "suspend-job": lambda w: w.one("create-job"),
    "resume-job": lambda w: w.one("create-job"),
    "delete-job": lambda w: {**w.pick(), "propagation": w.propagation()},
    "create-cronjob": lambda w: w.new(
        "create-cronjob",
        "every-minute",
        2,
        policy=("Allow", "Forbid", "Replace")[w.below(3)],
        command=_COMMANDS[w.below(len(_COMMANDS))],
    ),
    "suspend-cronjob": lambda w: w.one("create-cronjob"),
    "delete-cronjob": lambda w: w.one("create-cronjob", propagation=w.propagation()),
    "create-pod": _Writer.pod,
    "create-claim": lambda w: w.new("create-claim", "claim", 4, made_on_demand=w.below(2) == 0),
    "delete-claim": lambda w: w.one("create-claim"),
    "create-volume": lambda w: w.new_cluster_wide(
        "create-volume", "disk", 4, policy=("Retain", "Delete")[w.below(2)]
    ),
    "delete-volume": lambda w: w.one("create-volume"),
    "publish-devices": lambda w: w.node(devices=w.below(4)),
    "withdraw-devices": _Writer.node,
    "taint-devices": lambda w: w.node(effect=("NoSchedule", "NoExecute", "")[w.below(3)]),
    "create-device-set": lambda w: w.new(
        "create-device-set", "gpus", 3, replicas=w.below(4), count=1 + w.below(2)
    ),
    "scale-device-set": lambda w: w.one("create-device-set", replicas=w.below(5)),
    "create-device-claim": lambda w: w.new("create-device-claim", "gpu-claim", 3, count=1 + w.below(2)),
    "delete-device-claim": lambda w: w.one("create-device-claim"),
    "create-device-pod": _Writer.device_pod,
    "create-budget": lambda w: w.one("create-deployment", minimum=(1, 2, "50%", "100%")[w.below(4)]),
    "delete-budget": lambda w: w.one("create-deployment"),
    "create-quota": lambda w: w.new("create-quota", "limit", 1, pods=4 + w.below(12), configs=2 + w.below(4)),
    "set-quota": lambda w: w.one("create-quota", pods=4 + w.below(12)),
    "delete-quota": lambda w: w.one("create-quota"),
    "create-config": lambda w: w.new("create-config", "config", 8),
    "delete-config": lambda w: w.one("create-config", propagation=w.propagation()),
    "owned-config": lambda w: w.one("create-deployment", config=f"config-{w.number()}"),
    "own-in-a-circle": lambda w: w.one("create-config", blocks=w.below(2) == 0),
    "taint-node": lambda w: w.node(effect=("NoSchedule", "NoExecute")[w.below(2)]),
    "untaint-node": _Writer.node,
    "label-node": _Writer.node,
    "create-account": lambda w: w.new("create-account", "robot", 3),
    "delete-account": lambda w: w.one("create-account"),
    "create-role": lambda w: w.new_cluster_wide(
        "create-role", "reads", 3, resource=("pods", "services", "nodes")[w.below(3)]
    ),
    "aggregate-roles": lambda w: w.new_cluster_wide("create-role", "all", 1),
    "delete-role": lambda w: w.one("create-role"),
    "create-cidr": lambda w: w.new_cluster_wide("create-cidr", "more", 2, cidr=_CIDRS[w.below(len(_CIDRS))]),
    "delete-cidr": lambda w: w.one("create-cidr"),
    "request-certificate": lambda w: w.new_cluster_wide("request-certificate", "request", 6),
    "approve-certificate": lambda w: w.one(
        "request-certificate", verdict=("Approved", "Approved", "Denied")[w.below(3)]
    ),
}
_NEEDS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "scale", "set-image", "pause", "resume", "delete-deployment", "create-service", "delete-service",
            "owned-config", "create-budget", "delete-budget",
        ),
        "create-deployment",
    ),
    **dict.fromkeys(("set-endpoints",), "create-endpoints"),
    **dict.fromkeys(("scale-controller", "delete-controller"), "create-controller"),
    **dict.fromkeys(("scale-statefulset", "update-statefulset", "delete-statefulset"), "create-statefulset"),
    **dict.fromkeys(("update-daemonset", "delete-daemonset"), "create-daemonset"),
    **dict.fromkeys(("suspend-job", "resume-job"), "create-job"),
    **dict.fromkeys(("suspend-cronjob", "delete-cronjob"), "create-cronjob"),
    "delete-claim": "create-claim",
    "scale-device-set": "create-device-set",
    **dict.fromkeys(("delete-device-claim", "create-device-pod"), "create-device-claim"),
    "delete-volume": "create-volume",
    **dict.fromkeys(("set-quota", "delete-quota"), "create-quota"),
    **dict.fromkeys(("delete-config", "own-in-a-circle"), "create-config"),
    "delete-account": "create-account",
    "delete-role": "create-role",
    "delete-cidr": "create-cidr",
    "approve-certificate": "request-certificate",
}  # fmt: skip
"""Verbs that act on what another one has made: while there is none, that one is done instead."""


async def play(client: Client, operations: Sequence[Operation], said: list[str]) -> None:
    """Do all of it at its time; `said` gets a line per operation."""
    started_s = anyio.current_time()
    for operation in operations:
        await anyio.sleep_until(started_s + operation.at_s)
        said.append(
            f"{operation.at_s:9.3f} {operation.verb} {dict(operation.args)}: {await perform(client, operation)}"
        )


async def perform(client: Client, operation: Operation) -> str:
    """`ok`, or why the API refused; a user does not insist."""
    try:
        with anyio.fail_after(OPERATION_TIMEOUT_S):
            await VERBS[operation.verb](client, **operation.args)
    except ApiError as error:
        return f"{error.reason}: {error.message}"
    except TimeoutError:
        return "no answer"
    return "ok"


async def tidy(client: Client) -> None:
    """Take back what would keep a cluster from coming to rest: taints of ours, pauses, limits, schedules, names, few devices."""
    for node in (await client.list("nodes")).items:
        await untaint(client, node)
    await enough_devices(client)
    await _set_back(client, DEPLOYMENTS, "paused", False)
    await _set_back(client, JOBS, "suspend", False)
    await _set_back(client, CRONJOBS, "suspend", True)
    for quota in (await client.list(QUOTAS)).items:
        await _gone(client, QUOTAS, quota)
    for pod in (await client.list("pods", label_selector="app=released")).items:
        await _gone(client, "pods", pod)  # a StatefulSet cannot make another one of its name


async def _set_back(client: Client, resource: str, field: str, wanted: bool) -> None:
    for obj in (await client.list(resource)).items:
        if bool(obj["spec"].get(field)) != wanted:
            metadata = obj["metadata"]
            await client.patch(
                resource, metadata["name"], {"spec": {field: wanted}}, "merge", metadata["namespace"]
            )


async def _gone(client: Client, resource: str, obj: Json) -> None:
    try:
        await client.delete(resource, obj["metadata"]["name"], obj["metadata"]["namespace"])
    except NotFound:
        return
