"""What golden pairs cannot say of pods: subresources, deletion and field selectors."""

from typing import Any

import pytest

from kcp.apis.core.container import default_pull_policy
from kcp.apis.core.pod import (
    POD_STRATEGY,
    graceful,
    prepare_ephemeral_containers,
    prepare_resize,
    validate_create,
    validate_ephemeral_containers,
    validate_resize,
)
from kcp.apis.core.pod_printing import pod_status
from kcp.machinery.errors import BadRequest

Json = dict[str, Any]

_SMALL = {"requests": {"cpu": "100m", "memory": "64Mi"}}


def _pod(spec: Json | None = None, **container: Any) -> Json:
    """A pod as it stands in the store."""
    app = {"name": "app", "image": "nginx:1.27", "resources": _SMALL, **container}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [app], **(spec or {})},
    }
    POD_STRATEGY.default(pod)
    POD_STRATEGY.prepare_create(pod)
    assert POD_STRATEGY.validate_create(pod) == []
    return pod


def _with_resources(pod: Json, resources: Json) -> Json:
    """The pod with other resources for its first container; nothing else is shared or changed."""
    first, *rest = pod["spec"]["containers"]
    return {**pod, "spec": {**pod["spec"], "containers": [{**first, "resources": resources}, *rest]}}


@pytest.mark.parametrize(
    ("node", "phase", "period", "requested", "wanted"),
    [
        ("", "Pending", 30, None, 0),
        ("", "Pending", 30, 60, 0),
        ("n1", "Running", 30, None, 30),
        ("n1", "Running", 30, 60, 60),
        ("n1", "Running", 30, 0, 0),
        ("n1", "Running", -5, None, 1),
        ("n1", "Running", 30, -1, 1),
        ("n1", "Succeeded", 30, 60, 0),
        ("n1", "Failed", 30, None, 0),
    ],
)
def test_grace_period(node: str, phase: str, period: int, requested: int | None, wanted: int) -> None:
    spec = {"terminationGracePeriodSeconds": period, "nodeName": node}
    assert graceful({"spec": spec, "status": {"phase": phase}}, requested) == wanted


def test_field_selectors_see_the_pod() -> None:
    pod = _pod({"nodeName": "n1", "serviceAccountName": "builder", "hostNetwork": True})
    pod["status"]["podIPs"] = [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]
    found = {field: read(pod) for field, read in POD_STRATEGY.selectable.items()}
    assert found == {
        "spec.nodeName": "n1",
        "spec.host": "n1",
        "spec.restartPolicy": "Always",
        "spec.schedulerName": "default-scheduler",
        "spec.serviceAccountName": "builder",
        "spec.hostNetwork": "true",
        "status.phase": "Pending",
        "status.podIP": "10.0.0.7",
        "status.podIPs": "10.0.0.7",
        "status.nominatedNodeName": "",
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("localhost:5000/team/app", "Always"),
        ("localhost:5000/team/app:v1", "IfNotPresent"),
        ("nginx@sha256:" + "a" * 64, "IfNotPresent"),
        ("nginx:latest@sha256:" + "a" * 64, "Always"),
        ("Not An Image", "IfNotPresent"),
    ],
)
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert default_pull_policy(image) == policy


def test_a_quantity_that_does_not_parse_is_a_bad_request() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "spec": {"containers": [{"resources": {"limits": {"cpu": "1x"}}}]},
    }
    with pytest.raises(BadRequest) as raised:
        POD_STRATEGY.default(pod)
    assert str(raised.value) == (
        'Pod in version "v1" cannot be handled as a Pod: quantities must match the regular expression '
        "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )


def test_a_status_write_keeps_spec_and_owners() -> None:
    old = _pod()
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "u1"}
    new = {
        **old,
        "metadata": {**old["metadata"], "ownerReferences": [owner], "labels": {"a": "b"}},
        "spec": {"containers": []},
        "status": {"phase": "Running"},
    }
    POD_STRATEGY.prepare_status(new, old)
    assert new["spec"] == old["spec"]
    assert new["metadata"] == {"name": "web", "namespace": "default", "labels": {"a": "b"}}
    assert new["status"] == {"phase": "Running", "qosClass": "Burstable"}


def test_a_condition_keeps_its_observed_generation() -> None:
    old = _pod()
    old["status"]["conditions"] = [{"type": "Ready", "status": "False", "observedGeneration": 3}]
    new = {
        **old,
        "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "True"}]},
    }
    POD_STRATEGY.prepare_status(new, old)
    first, second = new["status"]["conditions"]
    assert first["observedGeneration"] == 3
    assert "observedGeneration" not in second


def test_status_tells_what_kubectl_shows() -> None:
    waiting = {
        "name": "app",
        "ready": False,
        "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    }
    pod = _pod()
    assert pod_status(pod) == "Pending"
    pod["status"] = {"phase": "Running", "containerStatuses": [waiting]}
    assert pod_status(pod) == "CrashLoopBackOff"
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert pod_status(pod) == "Terminating"


# -- pods/resize ------------------------------------------------------------------------------------


def test_resize_changes_resources_alone() -> None:
    old = _pod()
    new = _with_resources(old, {"requests": {"cpu": "200m", "memory": "64Mi"}})
    new["spec"]["containers"][0]["image"] = "other"
    new["spec"]["nodeName"] = "n2"
    prepare_resize(new, old)
    app = new["spec"]["containers"][0]
    assert app["image"] == "nginx:1.27"
    assert app["resources"]["requests"]["cpu"] == "200m"
    assert "nodeName" not in new["spec"]
    assert validate_resize(new, old) == []


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        (
            {"requests": {"cpu": "100m"}},
            ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"],
        ),
        (
            {"requests": {**_SMALL["requests"], "ephemeral-storage": "1Gi"}},
            ["spec: Forbidden: only cpu and memory resources are mutable"],
        ),
        (
            {**_SMALL, "limits": _SMALL["requests"]},
            ['spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing'],
        ),
    ],
)
def test_resize_refuses(resources: Json, wanted: list[str]) -> None:
    old = _pod()
    new = _with_resources(old, resources)
    prepare_resize(new, old)
    assert [str(error) for error in validate_resize(new, old)] == wanted


def test_a_static_pod_cannot_be_resized() -> None:
    old = _pod()
    old["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    assert [str(error) for error in validate_resize(old, old)] == [
        "[]: Forbidden: static pods cannot be resized"
    ]


def test_an_init_container_cannot_be_resized_but_a_sidecar_can() -> None:
    step: Json = {"name": "step", "image": "a:1", "resources": _SMALL}
    for extra, wanted in (
        ({}, ["spec: Forbidden: resources for non-sidecar init containers are immutable"]),
        ({"restartPolicy": "Always"}, []),
    ):
        old = _pod({"initContainers": [{**step, **extra}]})
        first = old["spec"]["initContainers"][0]
        more = {"requests": {"cpu": "300m", "memory": "64Mi"}}
        new = {**old, "spec": {**old["spec"], "initContainers": [{**first, "resources": more}]}}
        prepare_resize(new, old)
        assert [str(error) for error in validate_resize(new, old)] == wanted


# -- pods/ephemeralcontainers -----------------------------------------------------------------------

_DEBUGGER = {"name": "debugger", "image": "busybox:1", "targetContainerName": "app"}


def _debugged(pod: Json, *containers: Json) -> Json:
    new = {
        **pod,
        "spec": {**pod["spec"], "ephemeralContainers": [dict(container) for container in containers]},
    }
    POD_STRATEGY.default(new)
    return new


def test_an_ephemeral_container_is_added_and_nothing_else_changes() -> None:
    old = _pod()
    new = _debugged(old, _DEBUGGER)
    new["spec"]["nodeName"] = "n2"
    prepare_ephemeral_containers(new, old)
    assert validate_ephemeral_containers(new, old) == []
    assert "nodeName" not in new["spec"]
    assert new["spec"]["ephemeralContainers"][0]["imagePullPolicy"] == "IfNotPresent"


def test_an_ephemeral_container_stays_as_it_is() -> None:
    old = _debugged(_pod(), _DEBUGGER)
    gone = _debugged(old)
    (error,) = validate_ephemeral_containers(gone, old)
    assert str(error) == (
        'spec.ephemeralContainers: Forbidden: existing ephemeral containers "debugger" may not be removed\n'
    )
    (error,) = validate_ephemeral_containers(_debugged(old, {**_DEBUGGER, "image": "busybox:2"}), old)
    assert 'existing ephemeral containers "debugger" may not be changed' in str(error)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            {"ports": [{"containerPort": 80}]},
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            {"targetContainerName": "nobody"},
            'spec.ephemeralContainers[0].targetContainerName: Not found: "nobody"',
        ),
        ({"name": "app"}, 'spec.ephemeralContainers[0].name: Duplicate value: "app"'),
    ],
)
def test_an_ephemeral_container_has_rules_of_its_own(change: Json, wanted: str) -> None:
    old = _pod()
    new = _debugged(old, {**_DEBUGGER, **change})
    assert wanted in [str(error) for error in validate_ephemeral_containers(new, old)]


def test_a_spec_that_was_valid_once_is_valid_again_and_a_faulty_one_never_becomes_so() -> None:
    def named(volume: str, image: str = "i", mounted: str = "") -> dict[str, Any]:
        mount = {"name": mounted or volume, "mountPath": "/token", "readOnly": True}
        container = {
            "name": "main", "image": image, "volumeMounts": [mount], "terminationMessagePolicy": "File",
            "imagePullPolicy": "Always",
        }  # fmt: skip
        spec = {
            "containers": [container], "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "x",
            "terminationGracePeriodSeconds": 30, "securityContext": {}, "volumes": [{"name": volume, "emptyDir": {}}],
        }  # fmt: skip
        return {"metadata": {"name": "p", "namespace": "default"}, "spec": spec}

    for _ in range(2):
        assert validate_create(named("kube-api-access-bcdfg")) == []
        assert validate_create(named("kube-api-access-4zx5z")) == []
        (bad,) = validate_create(named("kube-api-access-bcdfg", image=" i"))
        assert bad.field == "spec.containers[0].image"
        assert validate_create(named("kube-api-access-BCDFG"))
        assert validate_create(named("kube-api-access-"))
        assert validate_create(named("kube-api-access-bcdfg", mounted="kube-api-access-4zx5z"))


def test_pods_of_one_template_get_the_same_warnings_each_time_and_others_their_own() -> None:
    twice: Json = {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}
    told = [POD_STRATEGY.warnings(_pod(**twice), None) for _ in range(3)]
    assert told[0] == told[1] == told[2] != []
    assert POD_STRATEGY.warnings(_pod(), None) == []
    noted = _pod(**twice)
    noted["metadata"]["annotations"] = {"scheduler.alpha.kubernetes.io/critical-pod": ""}
    assert len(POD_STRATEGY.warnings(noted, None)) == len(told[0]) + 1
    assert POD_STRATEGY.warnings(_pod(**twice), None) == told[0]


def test_warnings_are_those_of_the_spec_as_it_is_even_when_another_was_checked_in_between() -> None:
    one = _pod(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])
    _pod()
    assert len(POD_STRATEGY.warnings(one, None)) == 1
