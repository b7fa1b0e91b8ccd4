"""pods/eviction: a delete that a PodDisruptionBudget may forbid.

The budget is checked, one disruption is taken from it and the pod is deleted in one transaction.
Source: k8s v1.36 pkg/registry/core/pod/storage/eviction.go.
"""

from __future__ import annotations

from typing import Any

import attrs

from kcp.api.admission.plugin import Companion
from kcp.api.context import Call, Server
from kcp.api.decoding import decode
from kcp.api.deletion import deleting
from kcp.api.options import DeleteOptions, WriteOptions, delete_options, write_options
from kcp.api.registry import attributes_of, begin, not_found
from kcp.api.results import Result, StatusResult
from kcp.api.transaction import Plan, Write, transact
from kcp.apis.kind import Json
from kcp.apis.semantics import pods
from kcp.machinery.document import normal
from kcp.machinery.errors import ApiError, BadRequest, Forbidden, TooManyRequests
from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.labels import from_label_selector
from kcp.machinery.meta import set_condition
from kcp.store.protocol import Head, Keep, Key, Put, Record

EVICTION = GroupVersionKind("policy", "v1", "Eviction")
BUDGETS = "poddisruptionbudgets.policy"
MAX_DISRUPTED_PODS = 2000
REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
_SUCCESS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _ignores_budgets(pod: Json) -> bool:
    """Pods whose going disrupts nothing (any more)."""
    return pods.phase(pod) in ("Succeeded", "Failed", "Pending") or pods.is_deleting(pod)


def budgets_of(pod: Json, head: Head) -> list[Record]:
    labels = pod["metadata"].get("labels") or {}
    found = []
    for record in head.list(BUDGETS, pod["metadata"]["namespace"]):
        selector = from_label_selector((record.value.get("spec") or {}).get("selector"))
        if selector.matches(labels):
            found.append(record)
    return found


def _refusal(message: str, retry_after_s: int) -> TooManyRequests:
    cause = {"reason": "DisruptionBudget", "message": message}
    details: dict[str, Any] = {"causes": [cause]}
    if not retry_after_s:
        error = TooManyRequests(REFUSED, 0, details=details)
        error.details.pop("retryAfterSeconds")
        return error
    return TooManyRequests(REFUSED, retry_after_s, details=details)


def _unready_may_go(pod: Json, budget: Json) -> bool:
    """A pod that is not ready counts for nothing: it may go when enough others are healthy, or always if so declared."""
    if pods.is_ready(pod):
        return False
    status = budget.get("status") or {}
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    desired = status.get("desiredHealthy", 0)
    return bool(status.get("currentHealthy", 0) >= desired and desired > 0)


def check_budget(budget: Json) -> None:
    """Raises TooManyRequests when the budget allows no disruption now, Forbidden when it is in no state to say."""
    metadata, status = budget["metadata"], budget.get("status") or {}
    name, allowed = metadata["name"], status.get("disruptionsAllowed", 0)
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        raise _refusal(f"The disruption budget {name} is still being processed by the server.", 10)
    if allowed < 0:
        raise Forbidden.of("policy", "poddisruptionbudget", name, "pdb disruptions allowed is negative")
    if len(status.get("disruptedPods") or {}) > MAX_DISRUPTED_PODS:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise Forbidden.of("policy", "poddisruptionbudget", name, why)
    if allowed == 0:
        desired, healthy = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
        raise _refusal(
            f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently", 0
        )


def _disrupted(write: Write, budget: Json, pod_name: str) -> Json:
    """The budget with one disruption taken, and the pod noted so that its controller does not count it."""
    status = dict(budget.get("status") or {})
    status["disruptionsAllowed"] = status.get("disruptionsAllowed", 0) - 1
    if status["disruptionsAllowed"] == 0:
        condition = {
            "type": "DisruptionAllowed",
            "status": "False",
            "reason": "InsufficientPods",
            "observedGeneration": status.get("observedGeneration", 0),
        }
        status["conditions"] = set_condition(status.get("conditions"), condition, write.moment)
    status["disruptedPods"] = {**(status.get("disruptedPods") or {}), pod_name: write.now}
    return {**budget, "status": status}


def _taking(write: Write, pod_name: str) -> Any:
    def change(current: Record | None, head: Head) -> Put | Keep:
        if current is None:
            return Keep()
        check_budget(current.value)
        value = _disrupted(write, current.value, pod_name)
        return Put(normal(value), value)

    return change


def _options(eviction: Json, options: WriteOptions) -> DeleteOptions:
    wanted = delete_options(eviction.get("deleteOptions") or {})
    if wanted.dry_run and not options.dry_run:
        return wanted
    return attrs.evolve(wanted, dry_run=options.dry_run)


async def create(server: Server, call: Call) -> Result:
    """201 with a Status; 429 with cause DisruptionBudget when a budget forbids it."""
    kind, name = call.kind, call.info.name
    assert kind is not None
    options = write_options(call, "CreateOptions")
    eviction = decode(server, call, EVICTION, options.field_validation)
    if (eviction["metadata"].get("name") or name) != name:
        raise BadRequest("name in URL does not match name in Eviction object")
    wanted = _options(eviction, options)
    write = begin(server, call, kind, attrs.evolve(options, dry_run=wanted.dry_run), subresource="eviction")
    server.admission.validate(attributes_of(write, "CREATE", name, eviction, None))
    written = await _evict(write, name, wanted)
    return StatusResult(dict(_SUCCESS), 201, written)


async def _evict(write: Write, name: str, wanted: DeleteOptions) -> int:
    deletes = deleting(attrs.evolve(write, subresource=""), name, wanted)
    budget = _budget_to_take(write, name)
    extra = [] if budget is None else [Companion(budget, _taking(write, name))]

    def planner(current: Record | None, head: Head) -> Plan:
        if current is not None and _needed_budget(current.value, head) != budget:
            raise _refusal("The disruption budget is still being processed by the server.", 10)
        return _marked(write, deletes(current, head))

    return (await transact(write, name, planner, extra)).revision


def _marked(write: Write, plan: Plan) -> Plan:
    """A pod that goes gracefully says why: condition DisruptionTarget. Source: addConditionAndDeletePod."""
    if not isinstance(plan.verdict, Put):
        return plan
    value = plan.verdict.value
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "observedGeneration": value["metadata"].get("generation", 0),
    }
    status = value.get("status") or {}
    conditions = set_condition(status.get("conditions"), condition, write.moment)
    marked = {**value, "status": {**status, "conditions": conditions}}
    return attrs.evolve(plan, verdict=attrs.evolve(plan.verdict, body=normal(marked), value=marked))


def _budget_to_take(write: Write, name: str) -> Key | None:
    record = write.server.store.get(write.key(name))
    if record is None:
        raise not_found(write.kind, name)
    key = _needed_budget(record.value, write.server.store)
    if key is not None:
        budget = write.server.store.get(key)
        assert budget is not None
        check_budget(budget.value)
    return key


def _needed_budget(pod: Json, head: Head) -> Key | None:
    """The budget that this eviction takes a disruption from. Raises InternalError for more than one."""
    if _ignores_budgets(pod):
        return None
    budgets = budgets_of(pod, head)
    if len(budgets) > 1:
        raise _SeveralBudgets(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    if not budgets or _unready_may_go(pod, budgets[0].value):
        return None
    return budgets[0].key


class _SeveralBudgets(ApiError):
    """Raised when more than one budget selects the pod: 500, as Kubernetes answers."""
