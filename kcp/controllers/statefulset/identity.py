"""Who a pod of a StatefulSet is: its ordinal, name, host name, volumes and revision.

Source: k8s v1.36 pkg/controller/statefulset/stateful_set_utils.go.
"""

from __future__ import annotations

import re
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics.workloads import CONTROLLER_REVISION_HASH, replicas
from kcp.controllers.controller_history import template_of
from kcp.controllers.replicas import pod_from_template
from kcp.machinery import meta

Json = dict[str, Any]

POD_NAME_LABEL = "statefulset.kubernetes.io/pod-name"
POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"
_INT32 = 2**31
_MEMBER = re.compile(r"(.*)-([0-9]+)", re.ASCII | re.DOTALL)


def parent_and_ordinal(pod: Json) -> tuple[str, int]:
    """The name's two parts; ("", -1) when it has none."""
    match = _MEMBER.fullmatch(meta.name(pod))
    if match is None:
        return "", -1
    number = int(match.group(2))
    return match.group(1), number if number < _INT32 else -1


def ordinal(pod: Json) -> int:
    return parent_and_ordinal(pod)[1]


def is_member(set_: Json, pod: Json) -> bool:
    return parent_and_ordinal(pod)[0] == meta.name(set_)


def start_ordinal(set_: Json) -> int:
    return int((set_["spec"].get("ordinals") or {}).get("start") or 0)


def in_range(set_: Json, pod: Json) -> bool:
    """Whether the set wants a pod of this ordinal."""
    start = start_ordinal(set_)
    return start <= ordinal(pod) < start + replicas(set_)


def pod_name(set_: Json, number: int) -> str:
    return f"{meta.name(set_)}-{number}"


def revision_of(pod: Json) -> str:
    return meta.labels(pod).get(CONTROLLER_REVISION_HASH, "")


def partition(set_: Json) -> int | None:
    """spec.updateStrategy.rollingUpdate.partition; None when there is no rollingUpdate."""
    rolling = (set_["spec"].get("updateStrategy") or {}).get("rollingUpdate")
    return None if rolling is None else int(rolling.get("partition") or 0)


def is_rolling(set_: Json) -> bool:
    strategy = (set_["spec"].get("updateStrategy") or {}).get("type") or "RollingUpdate"
    return bool(strategy == "RollingUpdate")


def needs_current_revision(set_: Json, number: int) -> bool:
    """Whether a pod made anew for this ordinal still gets the old revision."""
    if not is_rolling(set_):
        return False
    kept = partition(set_)
    if kept is None:
        kept = (set_.get("status") or {}).get("currentReplicas") or 0
    return number < start_ordinal(set_) + kept


def new_pod(set_: Json, revision: Json, number: int) -> Json:
    """The pod of an ordinal as a revision describes it."""
    pod = pod_from_template(set_, template_of(revision))
    metadata = {k: v for k, v in pod["metadata"].items() if k != "generateName"}
    labels = {**(metadata.get("labels") or {}), CONTROLLER_REVISION_HASH: meta.name(revision)}
    metadata |= {"name": pod_name(set_, number), "namespace": meta.namespace(set_), "labels": labels}
    pod = with_identity(set_, {**pod, "metadata": metadata})
    spec = {**pod["spec"], "hostname": meta.name(pod)}
    if set_["spec"].get("serviceName"):
        spec["subdomain"] = set_["spec"]["serviceName"]
    return with_storage(set_, {**pod, "spec": spec})


def has_identity(set_: Json, pod: Json) -> bool:
    labels = meta.labels(pod)
    return labels.get(POD_NAME_LABEL) == meta.name(pod) and labels.get(POD_INDEX_LABEL) == str(ordinal(pod))


def with_identity(set_: Json, pod: Json) -> Json:
    """The pod with the labels that name it; what no update may change stays as it is."""
    del set_
    own = {POD_NAME_LABEL: meta.name(pod), POD_INDEX_LABEL: str(ordinal(pod))}
    return {**pod, "metadata": {**pod["metadata"], "labels": {**meta.labels(pod), **own}}}


def claim_templates(set_: Json) -> list[Json]:
    templates: list[Json] = set_["spec"].get("volumeClaimTemplates") or []
    return templates


def claim_name(set_: Json, template: Json, number: int) -> str:
    return f"{meta.name(template)}-{meta.name(set_)}-{number}"


def has_storage(set_: Json, pod: Json) -> bool:
    """Whether the pod's volumes are the claims of its ordinal."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or ()}
    return all(
        ((volumes.get(meta.name(template)) or {}).get("persistentVolumeClaim") or {}).get("claimName")
        == claim_name(set_, template, ordinal(pod))
        for template in claim_templates(set_)
    )


def with_storage(set_: Json, pod: Json) -> Json:
    """The pod with a volume for each claim template, in place of volumes of the same names."""
    claims = [
        {
            "name": meta.name(template),
            "persistentVolumeClaim": {"claimName": claim_name(set_, template, ordinal(pod))},
        }
        for template in claim_templates(set_)
    ]
    if not claims:
        return pod
    names = {claim["name"] for claim in claims}
    others = [volume for volume in pod["spec"].get("volumes") or () if volume["name"] not in names]
    return {**pod, "spec": {**pod["spec"], "volumes": [*claims, *others]}}


def exists(pod: Json) -> bool:
    """False for a pod that this plan only means to create."""
    return bool(meta.uid(pod))


def is_running_and_ready(pod: Json) -> bool:
    return pod_facts.phase(pod) == "Running" and pod_facts.is_ready(pod)
