"""The objects that a simulated user writes: small ones, of every kind that a controller looks after."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
REGISTRY = "registry.example"
STORAGE_CLASS = "local"


def _object(api_version: str, kind: str, name: str, labels: Json | None = None, **more: Any) -> Json:
    metadata: Json = {"name": name, **({"labels": labels} if labels else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}


def pod_spec(image: str = "app:0", *, command: str = "", restart: str = "", grace_s: int = 5) -> Json:
    container: Json = {
        "name": "main",
        "image": f"{REGISTRY}/{image}",
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}},
    }
    if command:
        container["command"] = ["sh", "-c", command]
    spec: Json = {"containers": [container], "terminationGracePeriodSeconds": grace_s}
    if restart:
        spec["restartPolicy"] = restart
    return spec


def _template(app: str, **spec: Any) -> Json:
    return {"metadata": {"labels": {"app": app}}, "spec": pod_spec(**spec)}


def _selector(app: str) -> Json:
    return {"matchLabels": {"app": app}}


def deployment(
    name: str, replicas: int, surge: Any, unavailable: Any, *, recreate: bool, tolerate_s: int | None
) -> Json:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    template = _template(name)
    if tolerate_s is not None:
        template["spec"]["tolerations"] = [
            {"key": "simulated", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": tolerate_s}
        ]
    spec = {
        "replicas": replicas,
        "revisionHistoryLimit": 2,
        "selector": _selector(name),
        "strategy": {"type": "Recreate"} if recreate else rolling,
        "template": template,
    }
    return _object("apps/v1", "Deployment", name, {"app": name}, spec=spec)


def replication_controller(name: str, replicas: int) -> Json:
    spec = {"replicas": replicas, "selector": {"app": name}, "template": _template(name)}
    return _object("v1", "ReplicationController", name, spec=spec)


def stateful_set(name: str, replicas: int, *, parallel: bool, claims: bool, partition: int) -> Json:
    spec: Json = {
        "replicas": replicas,
        "serviceName": name,
        "selector": _selector(name),
        "podManagementPolicy": "Parallel" if parallel else "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}},
        "revisionHistoryLimit": 2,
        "template": _template(name),
    }
    if claims:
        spec["volumeClaimTemplates"] = [claim("data", STORAGE_CLASS)]
        spec["persistentVolumeClaimRetentionPolicy"] = {"whenDeleted": "Delete", "whenScaled": "Retain"}
    return _object("apps/v1", "StatefulSet", name, {"app": name}, spec=spec)


def daemon_set(name: str, *, surge: int) -> Json:
    rolling = {"maxSurge": 1, "maxUnavailable": 0} if surge else {"maxUnavailable": 1}
    spec = {
        "selector": _selector(name),
        "revisionHistoryLimit": 2,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
        "template": _template(name),
    }
    return _object("apps/v1", "DaemonSet", name, {"app": name}, spec=spec)


def job_spec(
    command: str, completions: int, parallelism: int, *, indexed: bool, backoff_limit: int, ttl_s: int | None
) -> Json:
    spec: Json = {
        "completions": completions,
        "parallelism": parallelism,
        "completionMode": "Indexed" if indexed else "NonIndexed",
        "backoffLimit": backoff_limit,
        "template": {"spec": pod_spec(command=command, restart="Never")},
    }
    if ttl_s is not None:
        spec["ttlSecondsAfterFinished"] = ttl_s
    return spec


def job(name: str, spec: Json) -> Json:
    return _object("batch/v1", "Job", name, spec=spec)


def cron_job(name: str, policy: str, command: str) -> Json:
    template = {"spec": job_spec(command, 1, 1, indexed=False, backoff_limit=1, ttl_s=None)}
    spec = {
        "schedule": "* * * * *",
        "concurrencyPolicy": policy,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 1,
        "jobTemplate": template,
    }
    return _object("batch/v1", "CronJob", name, spec=spec)


def bare_pod(name: str, command: str, restart: str, claim_name: str, *, ephemeral: bool) -> Json:
    spec = pod_spec(command=command, restart=restart)
    volumes: list[Json] = []
    if claim_name:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": claim_name}})
    if ephemeral:
        template = {"spec": claim("", STORAGE_CLASS)["spec"]}
        volumes.append({"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}})
    if volumes:
        spec["volumes"] = volumes
    return _object("v1", "Pod", name, {"app": name}, spec=spec)


def claim(name: str, storage_class: str) -> Json:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": "1Gi"}},
    }
    return _object("v1", "PersistentVolumeClaim", name, spec=spec)


def volume(name: str, policy: str) -> Json:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "2Gi"},
        "hostPath": {"path": f"/data/{name}"},
        "persistentVolumeReclaimPolicy": policy,
    }
    return _object("v1", "PersistentVolume", name, spec=spec)


def storage_class() -> Json:
    return _object(
        "storage.k8s.io/v1",
        "StorageClass",
        STORAGE_CLASS,
        provisioner="kcp.io/local-path",
        volumeBindingMode="WaitForFirstConsumer",
        reclaimPolicy="Delete",
    )


def service(name: str, *, selects: bool = True) -> Json:
    spec: Json = {"ports": [{"port": 80, "targetPort": 8080}]}
    if selects:
        spec |= {"selector": {"app": name}, "type": "NodePort"}
    return _object("v1", "Service", name, spec=spec)


def endpoints(name: str, addresses: int) -> Json:
    subset = {"addresses": [{"ip": f"192.0.2.{n + 1}"} for n in range(addresses)], "ports": [{"port": 8080}]}
    return _object("v1", "Endpoints", name, subsets=[subset] if addresses else [])


def budget(name: str, minimum: Any) -> Json:
    return _object(
        "policy/v1", "PodDisruptionBudget", name, spec={"minAvailable": minimum, "selector": _selector(name)}
    )


def quota(name: str, pods: int, configs: int) -> Json:
    hard = {"pods": str(pods), "count/configmaps": str(configs)}
    return _object("v1", "ResourceQuota", name, spec={"hard": hard})


def config(name: str, owners: list[Json] | None = None) -> Json:
    made = _object("v1", "ConfigMap", name, data={"of": name})
    if owners:
        made["metadata"]["ownerReferences"] = owners
    return made


def owner(obj: Json, *, blocks: bool = False) -> Json:
    reference = {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
    }
    return {**reference, "blockOwnerDeletion": True} if blocks else reference


def namespace(name: str) -> Json:
    return _object("v1", "Namespace", name)


def service_account(name: str) -> Json:
    return _object("v1", "ServiceAccount", name)


def account_token(name: str, account: str) -> Json:
    made = _object("v1", "Secret", name, type="kubernetes.io/service-account-token")
    made["metadata"]["annotations"] = {"kubernetes.io/service-account.name": account}
    return made


def cluster_role(name: str, *, aggregates: str = "", resource: str = "") -> Json:
    if aggregates:
        selectors = [{"matchLabels": {"aggregate": aggregates}}]
        kind = _object("rbac.authorization.k8s.io/v1", "ClusterRole", name, rules=[])
        return {**kind, "aggregationRule": {"clusterRoleSelectors": selectors}}
    rules = [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]
    return _object("rbac.authorization.k8s.io/v1", "ClusterRole", name, {"aggregate": "all"}, rules=rules)


def service_cidr(name: str, cidr: str) -> Json:
    return _object("networking.k8s.io/v1", "ServiceCIDR", name, spec={"cidrs": [cidr]})


def certificate_request(name: str, request: str) -> Json:
    """`request` is a PEM request in base64."""
    spec = {
        "request": request,
        "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["digital signature", "client auth"],
        "expirationSeconds": 3600,
    }
    return _object("certificates.k8s.io/v1", "CertificateSigningRequest", name, spec=spec)
