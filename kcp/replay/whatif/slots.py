"""One wish for a pod, and what stands for it in a what-if.

A pod of the log that went since it was preempted, or since its node was lost, is made anew by its controller. Where the other
scheduler did not evict it there is nothing to make anew, and where it evicts one that the log let live, a new one is needed
that the log does not have. So a slot holds one pod after the other, whatever their names.

As long as a slot is not `free` its pod does what the log says. It becomes free with the first thing that differs: another
node, another moment, no node at all. From then on its pod is made here: it runs as long as the log's pod ran from its own
start, or until the log's pod was deleted.
"""

from __future__ import annotations

from typing import Any

import attrs

from kcp.base.clock import moment
from kcp.machinery.times import format_time
from kcp.replay.whatif.arrivals import Life
from kcp.scheduler.preemption import DISRUPTED_REASON

Json = dict[str, Any]


@attrs.define(eq=False, slots=True)
class Slot:
    """Times in µs, -1: not yet. `first_uid` and `name` are those of its first pod. `life` and `log` are the log's newest pod for it, `shown` what the state has; None: nothing.

    `placed` lists every node its pods were put on, `victims` whom they evicted, `waited_us` how long the first one waited. `left`: it goes, or went, as the log says.
    """

    life: Life
    log: Json
    first_uid: str
    name: str
    created_us: int
    uid: str = ""
    shown: Json | None = None
    node: str = ""
    bound_us: int = -1
    waited_us: int = -1
    placed: list[str] = attrs.field(factory=list)
    victims: list[tuple[str, ...]] = attrs.field(factory=list)
    tried: bool = False
    in_gang: bool = False
    free: bool = False
    left: bool = False
    going: bool = False
    goes_as_recorded: bool = False
    evictions: int = 0
    text: str = ""
    parked: tuple[str, ...] = ()
    generation: int = 1

    def __attrs_post_init__(self) -> None:
        self.uid = self.first_uid

    @property
    def first_node(self) -> str:
        """Where it was put first, "" for nowhere."""
        return self.placed[0] if self.placed else ""

    @property
    def key(self) -> str:
        return self.life.key

    def put(self, node: str, now_us: int) -> None:
        """Its pod runs on that node from now on."""
        self.node, self.bound_us, self.text = node, now_us, ""
        self.placed.append(node)
        if self.waited_us < 0 and self.created_us >= 0:
            self.waited_us = max(0, now_us - self.created_us)

    def take_back(self) -> None:
        """It was not put there after all."""
        self.node, self.bound_us = "", -1
        self.placed.pop()
        if not self.placed:
            self.waited_us = -1

    def renew(self) -> None:
        """The next pod of this slot, which nobody has placed yet."""
        self.generation += 1
        self.uid = f"{self.life.uid}/{self.generation}"
        self.node, self.bound_us, self.going = "", -1, False

    def pod(self) -> Json:
        """As it is here. Nominations are the scheduler's own."""
        return self._made() if self.free else _not_nominated(self.log)

    def _made(self) -> Json:
        metadata = {key: value for key, value in self.log["metadata"].items() if key != "deletionTimestamp"}
        metadata["uid"] = self.uid
        spec = {key: value for key, value in self.log["spec"].items() if key != "nodeName"}
        status: Json = {"phase": "Pending"}
        if self.node:
            spec["nodeName"] = self.node
            status = {"phase": "Running", "startTime": format_time(moment(self.bound_us))}
        if self.going:
            metadata["deletionTimestamp"] = "gone soon"
            status["conditions"] = [
                {"type": "DisruptionTarget", "status": "True", "reason": DISRUPTED_REASON}
            ]
        elif self._deleted_by_itself:
            metadata["deletionTimestamp"] = self.log["metadata"]["deletionTimestamp"]
        return {**self.log, "metadata": metadata, "spec": spec, "status": status}

    @property
    def _deleted_by_itself(self) -> bool:
        return "deletionTimestamp" in self.log["metadata"] and not self.ends_by_itself

    @property
    def ends_by_itself(self) -> bool:
        """Whether the log's deletion of its pod means nothing here: it was done, or displaced, when it was deleted."""
        return bool(self.life.lost_to) or self.life.run_us >= 0


def _not_nominated(pod: Json) -> Json:
    status = pod.get("status") or {}
    if not status.get("nominatedNodeName"):
        return pod
    return {**pod, "status": {key: value for key, value in status.items() if key != "nominatedNodeName"}}
