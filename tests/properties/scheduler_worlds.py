"""Random clusters for the scheduler: few nodes, few labels, many features, so that rules meet each other often."""

from __future__ import annotations

from random import Random
from typing import Any

Json = dict[str, Any]
ZONE, HOSTNAME = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
KEYS = (ZONE, HOSTNAME, "rack")
APPS = ("a", "b", "c")
NAMESPACES = ("one", "two")
IMAGES = ("big", "registry:5000/small", "big:v2")
MIB = 1024 * 1024


def node(rng: Random, name: str) -> Json:
    labels = {}
    for key in KEYS:
        if rng.random() < 0.85:
            labels[key] = name if key == HOSTNAME else rng.choice("xyz")
    allocatable = {
        "cpu": rng.choice(["1", "2", "4", "0"]),
        "memory": rng.choice(["1Gi", "2Gi", "8Gi"]),
        "pods": rng.choice(["4", "10", "110"]),
        "ephemeral-storage": "10Gi",
    }
    if rng.random() < 0.3:
        allocatable["example.com/gpu"] = rng.choice(["1", "2"])
    spec: Json = {}
    if rng.random() < 0.3:
        spec["taints"] = [taint(rng) for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.07:
        spec["unschedulable"] = True
    images = [{"names": [i], "sizeBytes": rng.randint(1, 900) * MIB} for i in IMAGES if rng.random() < 0.4]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"allocatable": allocatable, "images": images},
    }


def taint(rng: Random) -> Json:
    effect = rng.choice(["NoSchedule", "NoExecute", "PreferNoSchedule", "PreferNoSchedule"])
    return {"key": rng.choice(["k1", "k2"]), "value": rng.choice(["", "v"]), "effect": effect}


def toleration(rng: Random) -> Json:
    found: Json = {"operator": rng.choice(["Exists", "Equal"])}
    if found["operator"] == "Equal" or rng.random() < 0.7:
        found["key"] = rng.choice(["k1", "k2", "node.kubernetes.io/unschedulable"])
    if found["operator"] == "Equal":
        found["value"] = rng.choice(["", "v"])
    if rng.random() < 0.6:
        found["effect"] = rng.choice(["NoSchedule", "PreferNoSchedule", "NoExecute"])
    return found


def selector(rng: Random) -> Json | None:
    roll = rng.random()
    if roll < 0.6:
        return {"matchLabels": {"app": rng.choice(APPS)}}
    if roll < 0.85:
        operator = rng.choice(["In", "NotIn", "Exists"])
        expression: Json = {"key": rng.choice(["app", "tier"]), "operator": operator}
        if operator != "Exists":
            expression["values"] = rng.sample(APPS, 2)
        return {"matchExpressions": [expression]}
    return {} if roll < 0.95 else None


def term(rng: Random) -> Json:
    found: Json = {"topologyKey": rng.choice(KEYS), "labelSelector": selector(rng)}
    roll = rng.random()
    if roll < 0.25:
        found["namespaces"] = rng.sample(NAMESPACES, rng.randint(1, 2))
    if 0.15 < roll < 0.4:
        found["namespaceSelector"] = rng.choice([{}, {"matchLabels": {"team": "red"}}])
    if rng.random() < 0.1 and found["labelSelector"] is not None:
        found["matchLabelKeys"] = ["tier"]
    return found


def pod_affinity(rng: Random, required: float) -> Json:
    found: Json = {}
    for kind in ("podAffinity", "podAntiAffinity"):
        part: Json = {}
        if rng.random() < required:
            part["requiredDuringSchedulingIgnoredDuringExecution"] = [
                term(rng) for _ in range(rng.choice([1, 1, 2]))
            ]
        if rng.random() < 0.3:
            part["preferredDuringSchedulingIgnoredDuringExecution"] = [
                {"weight": rng.randint(1, 100), "podAffinityTerm": term(rng)}
                for _ in range(rng.randint(1, 2))
            ]
        if part:
            found[kind] = part
    return found


def node_affinity(rng: Random) -> Json:
    def expression() -> Json:
        operator = rng.choice(["In", "NotIn", "Exists", "DoesNotExist"])
        made: Json = {"key": rng.choice([ZONE, "rack"]), "operator": operator}
        if operator in ("In", "NotIn"):
            made["values"] = rng.sample("xyz", rng.randint(1, 2))
        return made

    found: Json = {}
    if rng.random() < 0.5:
        terms: list[Json] = [{"matchExpressions": [expression()]} for _ in range(rng.randint(1, 2))]
        if rng.random() < 0.2:
            names = [f"n{rng.randint(0, 9)}" for _ in range(2)]
            terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": names}]}]
        found["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    else:
        found["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {"weight": rng.randint(1, 100), "preference": {"matchExpressions": [expression()]}}
            for _ in range(rng.randint(1, 2))
        ]
    return found


def spread(rng: Random) -> Json:
    found: Json = {
        "topologyKey": rng.choice(KEYS),
        "maxSkew": rng.randint(1, 3),
        "whenUnsatisfiable": rng.choice(["DoNotSchedule", "ScheduleAnyway"]),
        "labelSelector": selector(rng),
    }
    if rng.random() < 0.3 and found["whenUnsatisfiable"] == "DoNotSchedule":
        found["minDomains"] = rng.randint(1, 4)
    if rng.random() < 0.3:
        found["nodeAffinityPolicy"] = "Ignore"
    if rng.random() < 0.3:
        found["nodeTaintsPolicy"] = "Honor"
    if rng.random() < 0.2 and found["labelSelector"] is not None:
        found["matchLabelKeys"] = ["tier"]
    return found


def container(rng: Random) -> Json:
    requests = {}
    if rng.random() < 0.7:
        requests["cpu"] = rng.choice(["50m", "100m", "500m", "0"])
    if rng.random() < 0.7:
        requests["memory"] = rng.choice(["64Mi", "200Mi", "700Mi"])
    if rng.random() < 0.08:
        requests["example.com/gpu"] = "1"
    made: Json = {"name": "c", "image": rng.choice((*IMAGES, "unknown")), "resources": {"requests": requests}}
    if rng.random() < 0.12:
        port: Json = {"containerPort": 80, "hostPort": rng.choice([80, 443])}
        if rng.random() < 0.5:
            port["hostIP"] = rng.choice(["10.0.0.1", "10.0.0.2", "0.0.0.0"])
        made["ports"] = [port]
    return made


def kind_of_pod(rng: Random) -> Json:
    """A template: labels and spec."""
    labels = {"app": rng.choice(APPS), "tier": rng.choice("xy")}
    spec: Json = {"containers": [container(rng) for _ in range(rng.choice([1, 1, 2]))]}
    if rng.random() < 0.15:
        spec["initContainers"] = [container(rng)]
    if rng.random() < 0.3:
        spec["tolerations"] = [toleration(rng) for _ in range(rng.randint(1, 2))]
    affinity: Json = pod_affinity(rng, 0.25) if rng.random() < 0.6 else {}
    if rng.random() < 0.3:
        affinity["nodeAffinity"] = node_affinity(rng)
    if affinity:
        spec["affinity"] = affinity
    if rng.random() < 0.15:
        spec["nodeSelector"] = {ZONE: rng.choice("xyz")}
    if rng.random() < 0.4:
        spec["topologySpreadConstraints"] = [spread(rng) for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.25:
        spec["volumes"] = [volume_of_pod(rng, number) for number in range(rng.randint(1, 2))]
    return {"namespace": rng.choice(NAMESPACES), "labels": labels, "spec": spec, "owned": rng.random() < 0.4}


CLAIMS = tuple(f"claim-{number}" for number in range(4))
"""In each namespace, all of them bound."""
DRIVER = "disk.example.com"


def volume_of_pod(rng: Random, number: int) -> Json:
    roll, name = rng.random(), f"v{number}"
    if roll < 0.15:
        return {"name": name, "awsElasticBlockStore": {"volumeID": rng.choice("ab")}}
    if roll < 0.3:
        disk = {"pdName": rng.choice("ab"), "readOnly": rng.random() < 0.5}
        return {"name": name, "gcePersistentDisk": disk}
    return {"name": name, "persistentVolumeClaim": {"claimName": rng.choice(CLAIMS)}}


def claim(rng: Random, namespace: str, name: str) -> tuple[Json, Json]:
    """(claim, its volume); some volumes are in a zone, some are to be reached from some racks only."""
    volume = f"{namespace}-{name}"
    mode = rng.choice(["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"])
    made: Json = {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {"pv.kubernetes.io/bind-completed": "yes"},
        },
        "spec": {"accessModes": [mode], "volumeName": volume},
        "status": {"phase": "Bound"},
    }
    spec: Json = {"csi": {"driver": DRIVER, "volumeHandle": volume}}
    if rng.random() < 0.3:
        racks = {"key": "rack", "operator": "In", "values": rng.sample("xyz", 2)}
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [racks]}]}}
    labels = {ZONE: rng.choice(["x", "y", "x__z"])} if rng.random() < 0.3 else {}
    return made, {"metadata": {"name": volume, "labels": labels}, "spec": spec}


def csi_node(rng: Random, name: str) -> Json:
    allocatable = {"count": rng.choice([0, 1, 2])}
    return {
        "metadata": {"name": name},
        "spec": {"drivers": [{"name": DRIVER, "nodeID": name, "allocatable": allocatable}]},
    }


def plain_kind_of_pod(rng: Random) -> Json:
    """A template of which only the requests matter."""
    spec: Json = {"containers": [container(rng)]}
    spec["containers"][0].pop("ports", None)
    spec["containers"][0]["image"] = "unknown"
    return {"namespace": rng.choice(NAMESPACES), "labels": {"plain": "yes"}, "spec": spec, "owned": False}


def with_priority(rng: Random, template: Json) -> Json:
    """Some pods matter more than others, and some of these do not evict anybody."""
    spec = {**template["spec"], "priority": rng.choice([-5, 0, 10, 10, 1000])}
    if rng.random() < 0.6:
        large = {"cpu": rng.choice(["400m", "700m", "1"]), "memory": "300Mi"}
        spec["containers"] = [{**spec["containers"][0], "resources": {"requests": large}}]
    if rng.random() < 0.1:
        spec["preemptionPolicy"] = "Never"
    return {**template, "spec": spec}


def budget(rng: Random, number: int) -> Json:
    """A disruption budget that may be used up."""
    status: Json = {"disruptionsAllowed": rng.choice([0, 0, 1, 2])}
    if rng.random() < 0.2:
        status["disruptedPods"] = {f"p{rng.randint(0, 9)}": "2026-01-01T00:00:00Z"}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": f"budget-{number}", "namespace": rng.choice(NAMESPACES)},
        "spec": {"selector": selector(rng)},
        "status": status,
    }


def pod(template: Json, number: int) -> Json:
    metadata: Json = {
        "name": f"p{number}",
        "namespace": template["namespace"],
        "uid": f"uid-{number:04}",
        "labels": template["labels"],
    }
    if template["owned"]:
        app = template["labels"]["app"]
        metadata["ownerReferences"] = [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": f"rs-{app}",
                "uid": "r",
                "controller": True,
            }
        ]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def replica_set(namespace: str, app: str) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": f"rs-{app}", "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": app}}},
    }


def service(namespace: str, app: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"svc-{app}", "namespace": namespace},
        "spec": {"selector": {"app": app}},
    }
