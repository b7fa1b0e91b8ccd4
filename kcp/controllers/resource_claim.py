"""ResourceClaims: made from templates for pods, reserved for pods that came to their node without the scheduler, and freed.

Keys are `pod:namespace/name` and `claim:namespace/name`. A claim loses its devices when its last consumer is done; a
generated one goes with its pod.
Source: k8s v1.36 pkg/controller/resourceclaim/controller.go.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics import resource_claims as facts
from kcp.controllers import effects as fx
from kcp.controllers.protection import without_finalizer
from kcp.controllers.sources import Controller, Fan
from kcp.machinery import meta
from kcp.machinery.errors import NotFound, go_quote

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
CLAIMS = "resourceclaims.resource.k8s.io"
TEMPLATES = "resourceclaimtemplates.resource.k8s.io"
FIELD_MANAGER = "ResourceClaimController"
MAX_BASE_NAME = 57
"""Room for a hyphen and five random letters in 63."""
POD, CLAIM = "pod:", "claim:"


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    del env
    if key.startswith(POD):
        yield from _plan_pod(key.removeprefix(POD), view)
    else:
        yield from _plan_claim(key.removeprefix(CLAIM), view)


# --- pods: their claims are there, and reserved ---


def _plan_pod(key: str, view: fx.View) -> Steps:
    pod = view.pods.get(key)
    if pod is None or meta.is_deleting(pod) or is_done(pod):
        return
    made: dict[str, str] = {}
    for entry in facts.claim_entries(pod):
        name = yield from _ensure(pod, entry, view)
        if name:
            made[entry["name"]] = name
    if made:
        outcome = yield fx.Patch(
            "pods", meta.namespace(pod), meta.name(pod), _statuses(pod, made), "apply", "status",
            field_manager=FIELD_MANAGER, force=True,
        )  # fmt: skip
        if outcome.error is not None and not isinstance(outcome.error, NotFound):
            raise fx.Abandoned
    elif pod_facts.is_assigned(pod):
        yield from _reserve(pod, view)


def _ensure(pod: Json, entry: Json, view: fx.View) -> Generator[fx.Effect, fx.Outcome, str]:
    """The name of the claim that was made, or found made, for the entry; "" when there is nothing to tell the pod."""
    name = facts.claim_name(pod, entry)
    if name == "":
        return ""
    if name is not None and _serves(view.claims.get(f"{meta.namespace(pod)}/{name}"), pod, entry):
        return ""
    template_name = entry.get("resourceClaimTemplateName")
    if not template_name:
        return ""
    known = _made_before(pod, entry, view)
    if known is not None:
        return meta.name(known)
    template = view.templates.get(f"{meta.namespace(pod)}/{template_name}")
    if template is None:
        missing = f'resourceclaimtemplate.resource.k8s.io "{template_name}" not found'
        fault = f"resource claim template {go_quote(template_name)}: {missing}"
        yield from _failed(pod, entry, fault)
    outcome = yield fx.Create(CLAIMS, meta.namespace(pod), claim_for(pod, entry, template or {}))
    if outcome.error is not None:
        yield from _failed(pod, entry, f"create ResourceClaim : {outcome.error.message}")
    return meta.name(outcome.object or {"metadata": {"name": ""}})


def _serves(claim: Json | None, pod: Json, entry: Json) -> bool:
    if claim is None:
        return bool(entry.get("resourceClaimName"))
    return bool(entry.get("resourceClaimName")) or facts.is_for_pod(claim, pod)


def _made_before(pod: Json, entry: Json, view: fx.View) -> Json | None:
    """A claim that was made for the entry, though the pod does not say so yet."""
    for claim in view.claims.index("owner", meta.uid(pod)):
        if meta.annotations(claim).get(facts.POD_CLAIM_ANNOTATION) == entry.get("name"):
            return claim
    return None


def _failed(pod: Json, entry: Json, fault: str) -> Steps:
    text = f"PodResourceClaim {entry.get('name')}: {fault}"
    yield fx.Event(pod, "Warning", "FailedResourceClaimCreation", text)
    raise fx.Abandoned


def claim_for(pod: Json, entry: Json, template: Json) -> Json:
    spec = template.get("spec") or {}
    given = spec.get("metadata") or {}
    metadata: Json = {
        "generateName": base_name(meta.name(pod), entry["name"]),
        "namespace": meta.namespace(pod),
        "annotations": {**(given.get("annotations") or {}), facts.POD_CLAIM_ANNOTATION: entry["name"]},
        "ownerReferences": [meta.owner_reference(pod, block=False)],
    }
    if given.get("labels"):
        metadata["labels"] = given["labels"]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": metadata,
        "spec": spec.get("spec") or {},
    }


def base_name(pod: str, entry: str) -> str:
    """`pod-entry-`; when that is too long both are shortened, each by its share."""
    whole = f"{pod}-{entry}-"
    if len(whole) <= MAX_BASE_NAME:
        return whole
    first, second = (len(part) * MAX_BASE_NAME // len(whole) for part in (pod, entry))
    return f"{pod[:first]}-{entry[:second]}"


def _statuses(pod: Json, made: Mapping[str, str]) -> Json:
    """What the controller owns of the pod's status: the claims of all entries of templates."""
    known = {status["name"]: status.get("resourceClaimName") for status in facts.claim_statuses(pod)}
    rows = [
        {"name": name, **({"resourceClaimName": claim} if claim else {})}
        for name, claim in sorted({**known, **made}.items())
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": meta.name(pod), "namespace": meta.namespace(pod)},
        "status": {"resourceClaimStatuses": rows},
    }


def _reserve(pod: Json, view: fx.View) -> Steps:
    """For a pod that somebody else than the scheduler put on its node."""
    for claim in _claims_of(pod, view):
        if not facts.is_allocated(claim) or facts.is_reserved_for(claim, pod):
            continue
        if not facts.can_be_reserved(claim):
            continue
        status = claim["status"]
        reserved = [*(status.get("reservedFor") or ()), facts.consumer_of(pod)]
        yield fx.Status(CLAIMS, claim, {**status, "reservedFor": reserved})


def _claims_of(pod: Json, view: fx.View) -> list[Json]:
    namespace = meta.namespace(pod)
    found = [view.claims.get(f"{namespace}/{name}") for name in facts.claim_names(pod)]
    return [claim for claim in found if claim is not None]


# --- claims: freed when nobody uses them ---


def _plan_claim(key: str, view: fx.View) -> Steps:
    claim = view.claims.get(key)
    if claim is None:
        return
    reserved: list[Json] = (claim.get("status") or {}).get("reservedFor") or []
    valid: list[Json] = []
    for consumer in reserved:
        if (yield from _needs(claim, consumer, view)):
            valid.append(consumer)
    protected = facts.FINALIZER in meta.finalizers(claim)
    if len(valid) < len(reserved) or (protected and meta.is_deleting(claim) and not valid):
        yield from _free(claim, valid, protected)
    if not valid:
        yield from _delete_generated(claim, view)


def _needs(claim: Json, consumer: Json, view: fx.View) -> Generator[fx.Effect, fx.Outcome, bool]:
    """Whether a consumer is still there and not done. Consumers of other kinds are kept: nothing is known of them."""
    if consumer.get("apiGroup") or consumer.get("resource") != "pods":
        return True
    pod = view.pods.get(f"{meta.namespace(claim)}/{consumer['name']}")
    if pod is None:
        live = yield fx.Live("pods", meta.namespace(claim), consumer["name"])
        if live.error is not None and not isinstance(live.error, NotFound):
            raise fx.Abandoned
        return live.object is not None and meta.uid(live.object) == consumer.get("uid")
    return meta.uid(pod) == consumer.get("uid") and not is_done(pod)


def is_done(pod: Json) -> bool:
    """None of its containers runs or will ever run."""
    return pod_facts.is_terminal(pod) or (meta.is_deleting(pod) and not pod_facts.is_assigned(pod))


def _free(claim: Json, valid: Sequence[Json], protected: bool) -> Steps:
    """Drop reservations; without any, drop the allocation of the scheduler and then the protection."""
    status = {k: v for k, v in (claim.get("status") or {}).items() if k != "reservedFor"}
    if valid:
        status["reservedFor"] = list(valid)
    elif protected:
        for field in ("allocation", "devices"):
            status.pop(field, None)
    present = claim
    if status != (claim.get("status") or {}):
        outcome = yield fx.Status(CLAIMS, claim, status)
        if not outcome.ok:
            raise fx.Abandoned
        present = outcome.object or claim
    if protected and not facts.is_allocated({**present, "status": status}):
        outcome = yield fx.Update(CLAIMS, without_finalizer(present, facts.FINALIZER))
        if outcome.error is not None and not isinstance(outcome.error, NotFound):
            raise fx.Abandoned


def _delete_generated(claim: Json, view: fx.View) -> Steps:
    """A claim made for a pod that is done or was replaced goes; if the pod is not known the garbage collector sees to it."""
    owner = meta.controller_of(claim)
    if owner is None or (owner.get("apiVersion"), owner.get("kind")) != ("v1", "Pod"):
        return
    pod = view.pods.get(f"{meta.namespace(claim)}/{owner['name']}")
    if pod is None or meta.is_deleting(claim):
        return
    if meta.uid(pod) != owner.get("uid") or is_done(pod):
        yield fx.Delete(CLAIMS, meta.namespace(claim), meta.name(claim), uid=meta.uid(claim))


# --- what wakes whom ---


def touched_pod(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """A pod that is done frees its claims; one that may run needs them."""
    pod = new if new is not None else old
    assert pod is not None
    names = facts.claim_names(pod)
    if not names and not facts.claim_entries(pod):
        return []
    keys = []
    if new is None or is_done(new):
        keys += [f"{CLAIM}{meta.namespace(pod)}/{name}" for name in names]
    if new is not None and not meta.is_deleting(new) and not is_done(new) and _lacks(new, readers["claims"]):
        keys.append(POD + meta.key_of(new))
    return keys


def _lacks(pod: Json, claims: fx.Reader) -> bool:
    """Whether there is something to be made or reserved for the pod."""
    for entry in facts.claim_entries(pod):
        name = facts.claim_name(pod, entry)
        if name is None:
            return True
        if name == "":
            continue
        claim = claims.get(f"{meta.namespace(pod)}/{name}")
        if not _serves(claim, pod, entry):
            return True
        if claim is not None and pod_facts.is_assigned(pod) and not facts.is_reserved_for(claim, pod):
            return facts.is_allocated(claim)
    return False


def touched_claim(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    claim = new if new is not None else old
    assert claim is not None
    keys = [CLAIM + meta.key_of(claim)] if new is not None else []
    pods = readers["pods"].index("claim", meta.key_of(claim))
    for pod in pods:
        keys += touched_pod(pod, pod, readers)
    return keys


def touched_template(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """Pods that failed for want of it are tried again at once."""
    if old is not None or new is None:
        return []
    return [POD + meta.key_of(pod) for pod in readers["pods"].index("template", meta.key_of(new))]


def claims_of_pod(pod: Json) -> list[str]:
    namespace = meta.namespace(pod)
    return list(dict.fromkeys(f"{namespace}/{name}" for name in facts.claim_names(pod)))


def templates_of_pod(pod: Json) -> list[str]:
    names = [entry.get("resourceClaimTemplateName") for entry in facts.claim_entries(pod)]
    return list(dict.fromkeys(f"{meta.namespace(pod)}/{name}" for name in names if name))


def owning_pod(claim: Json) -> list[str]:
    owner = meta.controller_of(claim)
    return [owner["uid"]] if owner is not None and owner.get("kind") == "Pod" else []


CONTROLLER = Controller(
    name="resourceclaim-controller",
    event_source="resource_claim",
    identity="resource-claim-controller",
    plan=plan,
    watches={
        "claims": Fan(CLAIMS, keys=touched_claim, indexes={"owner": owning_pod}),
        "pods": Fan("pods", keys=touched_pod, indexes={"claim": claims_of_pod, "template": templates_of_pod}),
        "templates": Fan(TEMPLATES, keys=touched_template),
    },
    workers=50,
)
