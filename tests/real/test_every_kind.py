"""Every GA kind of Kubernetes 1.36 can be created, read, listed, watched, changed and deleted, by HTTPS and by kubectl."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.real.daemon import eventually
from tests.real.https import Api
from tests.real.kinds import Served, identity, samples, served
from tests.real.kubectl import Kubectl

pytestmark = pytest.mark.real

KINDS = [identity(sample) for sample in samples("unused")]
WHOLE_LIFE = {"create", "get", "list", "watch", "update", "patch", "delete"}


@pytest.fixture(scope="module")
def resources(api: Api) -> dict[str, Served]:
    return {f"{row.api_version}/{row.kind}": row for row in served(api) if "list" in row.verbs}


def sample_of(kind: str, namespace: str) -> dict[str, Any]:
    return next(sample for sample in samples(namespace) if identity(sample) == kind)


def test_the_samples_cover_what_is_served(resources: dict[str, Served]) -> None:
    wanted = {kind for kind, row in resources.items() if "create" in row.verbs}
    assert sorted(wanted - set(KINDS)) == []
    assert [kind for kind in KINDS if not resources[kind].verbs >= WHOLE_LIFE] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_life_of_an_object(api: Api, resources: dict[str, Served], namespace: str, kind: str) -> None:
    path = resources[kind].path(namespace)
    sample = sample_of(kind, namespace)
    name = sample["metadata"]["name"]
    made = api.request("POST", f"{path}?fieldValidation=Strict", sample)
    assert made.status == 201, made.body
    first = made.json()
    assert (first["apiVersion"], first["kind"]) == (sample["apiVersion"], sample["kind"])
    assert first["metadata"]["uid"]

    label = api.request(
        "PATCH",
        f"{path}/{name}",
        {"metadata": {"labels": {"sampled": "yes"}}},
        content_type="application/merge-patch+json",
    )
    assert label.status == 200, label.body
    eventually(lambda: replaced(api, f"{path}/{name}"), f"{path}/{name} can be updated")

    read = api.get(f"{path}/{name}")
    assert read["metadata"]["labels"]["sampled"] == "yes"
    assert read["metadata"]["annotations"]["written"] == "whole"
    listed = api.get(f"{path}?labelSelector=sampled=yes&fieldSelector=metadata.name={name}")
    assert listed["kind"] == f"{sample['kind']}List"
    assert [item["metadata"]["uid"] for item in listed["items"]] == [first["metadata"]["uid"]]

    gone = api.request("DELETE", f"{path}/{name}?gracePeriodSeconds=0&propagationPolicy=Background")
    assert gone.status in (200, 202), gone.body
    release(api, f"{path}/{name}")
    seen = watched(api, path, name, first["metadata"]["resourceVersion"])
    assert seen[0] == "MODIFIED"
    assert seen[-1] == "DELETED"
    assert api.request("GET", f"{path}/{name}").status == 404


def replaced(api: Api, path: str) -> bool:
    """Write the object back with an annotation; controllers may write in between."""
    current = api.get(path)
    current["metadata"].setdefault("annotations", {})["written"] = "whole"
    answer = api.request("PUT", path, current)
    assert answer.status in (200, 409), answer.body
    return answer.status == 200


def release(api: Api, path: str) -> None:
    """Drop what protects a volume, a claim or a class that nothing uses, where no controller has done so."""
    current = api.request("GET", path)
    if current.status == 200 and "protection" in str(current.json()["metadata"].get("finalizers")):
        freed = {"metadata": {"finalizers": None}}
        answer = api.request("PATCH", path, freed, content_type="application/merge-patch+json")
        assert answer.status in (200, 404), answer.body


def watched(api: Api, path: str, name: str, since: str) -> list[str]:
    """Types of the watch events of one object after a revision, until it is deleted."""
    types = []
    query = f"watch=true&resourceVersion={since}&timeoutSeconds=20&fieldSelector=metadata.name={name}"
    for event in api.watch(f"{path}?{query}"):
        types.append(event["type"])
        if event["type"] == "DELETED":
            break
    return types


def test_kubectl_creates_labels_gets_and_deletes_them_all(kubectl: Kubectl) -> None:
    everything = yaml.safe_dump_all(samples(kubectl.namespace))
    made = kubectl("create", "-f", "-", stdin=everything).splitlines()
    assert len(made) == len(KINDS)
    assert all(line.endswith(" created") for line in made), made
    assert len(kubectl("label", "-f", "-", "sampled=yes", stdin=everything).splitlines()) == len(KINDS)
    read = json.loads(kubectl("get", "-f", "-", "-o", "json", stdin=everything))["items"]
    assert [identity(item) for item in read] == KINDS
    assert {item["metadata"]["labels"]["sampled"] for item in read} == {"yes"}
    assert kubectl("get", "-f", "-", stdin=everything).count("NAME") >= len(set(KINDS)) // 2
    deleted = kubectl(
        "delete", "-f", "-", "--wait=false", "--grace-period=0", "--force", stdin=everything
    ).splitlines()
    assert len(deleted) == len(KINDS)


COLUMNS = {
    "pods": "NAME READY STATUS RESTARTS AGE",
    "pods -o wide": "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES",
    "deployments": "NAME READY UP-TO-DATE AVAILABLE AGE",
    "deployments -o wide": "NAME READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR",
    "replicasets": "NAME DESIRED CURRENT READY AGE",
    "statefulsets": "NAME READY AGE",
    "daemonsets": "NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE",
    "jobs": "NAME STATUS COMPLETIONS DURATION AGE",
    "cronjobs": "NAME SCHEDULE TIMEZONE SUSPEND ACTIVE LAST SCHEDULE AGE",
    "replicationcontrollers": "NAME DESIRED CURRENT READY AGE",
    "controllerrevisions": "NAME CONTROLLER REVISION AGE",
    "podtemplates": "NAME CONTAINERS IMAGES POD LABELS",
    "services": "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE",
    "services -o wide": "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE SELECTOR",
    "endpoints": "NAME ENDPOINTS AGE",
    "endpointslices": "NAME ADDRESSTYPE PORTS ENDPOINTS AGE",
    "ingresses": "NAME CLASS HOSTS ADDRESS PORTS AGE",
    "ingressclasses": "NAME CONTROLLER PARAMETERS AGE",
    "networkpolicies": "NAME POD-SELECTOR AGE",
    "ipaddresses": "NAME PARENTREF",
    "servicecidrs": "NAME CIDRS AGE",
    "configmaps": "NAME DATA AGE",
    "secrets": "NAME TYPE DATA AGE",
    "serviceaccounts": "NAME AGE",
    "namespaces": "NAME STATUS AGE",
    "nodes": "NAME STATUS ROLES AGE VERSION",
    "nodes -o wide": "NAME STATUS ROLES AGE VERSION INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME",
    "events": "LAST SEEN TYPE REASON OBJECT MESSAGE",
    "limitranges": "NAME CREATED AT",
    "resourcequotas": "NAME REQUEST LIMIT AGE",
    "persistentvolumes": "NAME CAPACITY ACCESS MODES RECLAIM POLICY STATUS CLAIM STORAGECLASS VOLUMEATTRIBUTESCLASS REASON AGE",
    "persistentvolumeclaims": "NAME STATUS VOLUME CAPACITY ACCESS MODES STORAGECLASS VOLUMEATTRIBUTESCLASS AGE",
    "storageclasses": "NAME PROVISIONER RECLAIMPOLICY VOLUMEBINDINGMODE ALLOWVOLUMEEXPANSION AGE",
    "csidrivers": "NAME ATTACHREQUIRED PODINFOONMOUNT STORAGECAPACITY TOKENREQUESTS REQUIRESREPUBLISH MODES AGE",
    "csinodes": "NAME DRIVERS AGE",
    "csistoragecapacities": "NAME STORAGECLASSNAME CAPACITY",
    "volumeattachments": "NAME ATTACHER PV NODE ATTACHED AGE",
    "volumeattributesclasses": "NAME DRIVERNAME AGE",
    "horizontalpodautoscalers": "NAME REFERENCE TARGETS MINPODS MAXPODS REPLICAS AGE",
    "poddisruptionbudgets": "NAME MIN AVAILABLE MAX UNAVAILABLE ALLOWED DISRUPTIONS AGE",
    "priorityclasses": "NAME VALUE GLOBAL-DEFAULT AGE PREEMPTIONPOLICY",
    "runtimeclasses": "NAME HANDLER AGE",
    "leases": "NAME HOLDER AGE",
    "roles": "NAME CREATED AT",
    "rolebindings": "NAME ROLE AGE",
    "clusterroles": "NAME CREATED AT",
    "clusterrolebindings": "NAME ROLE AGE",
    "certificatesigningrequests": "NAME AGE SIGNERNAME REQUESTOR REQUESTEDDURATION CONDITION",
    "mutatingwebhookconfigurations": "NAME WEBHOOKS AGE",
    "validatingwebhookconfigurations": "NAME WEBHOOKS AGE",
    "validatingadmissionpolicies": "NAME VALIDATIONS PARAMKIND AGE",
    "validatingadmissionpolicybindings": "NAME POLICYNAME PARAMREF AGE",
    "mutatingadmissionpolicies": "NAME MUTATIONS PARAMKIND AGE",
    "mutatingadmissionpolicybindings": "NAME POLICYNAME PARAMREF AGE",
    "customresourcedefinitions": "NAME CREATED AT",
    "apiservices": "NAME SERVICE AVAILABLE AGE",
    "flowschemas": "NAME PRIORITYLEVEL MATCHINGPRECEDENCE DISTINGUISHERMETHOD AGE MISSINGPL",
    "prioritylevelconfigurations": "NAME TYPE NOMINALCONCURRENCYSHARES QUEUES HANDSIZE QUEUELENGTHLIMIT AGE",
    "deviceclasses": "NAME AGE",
    "resourceclaims": "NAME STATE AGE",
    "resourceclaimtemplates": "NAME AGE",
    "resourceslices": "NAME NODE DRIVER POOL AGE",
}
"""What `kubectl get` heads its table with. Source: k8s v1.36 pkg/printers/internalversion/printers.go."""


def test_get_prints_the_columns_of_every_kind(
    kubectl: Kubectl, api: Api, resources: dict[str, Served]
) -> None:
    for sample in samples(kubectl.namespace):
        row = resources[identity(sample)]
        made = api.request("POST", row.path(kubectl.namespace), sample)
        assert made.status in (201, 409), made.body
    found = {query: headings(kubectl("get", *query.split())) for query in COLUMNS}
    assert found == COLUMNS
    covered = {query.split()[0] for query in COLUMNS}
    assert sorted({row.plural for row in resources.values()} - covered - {"componentstatuses"}) == []


def headings(table: str) -> str:
    return " ".join(table.splitlines()[0].split())
