"""Services, volumes and resource claims."""

from typing import Any

import pytest

from kcp.apis.semantics import resource_claims, services, volumes

Json = dict[str, Any]


def _service(**spec: Any) -> Json:
    return {"metadata": {"name": "web"}, "spec": spec}


def test_headless_and_external_services_need_no_address() -> None:
    assert services.needs_cluster_ip(_service())
    assert not services.needs_cluster_ip(_service(clusterIP="None"))
    assert not services.needs_cluster_ip(_service(type="ExternalName"))


def test_node_ports_can_be_switched_off_for_load_balancers_only() -> None:
    assert services.needs_node_ports(_service(type="LoadBalancer"))
    assert not services.needs_node_ports(_service(type="LoadBalancer", allocateLoadBalancerNodePorts=False))
    assert services.needs_node_ports(_service(type="NodePort", allocateLoadBalancerNodePorts=False))
    assert not services.needs_node_ports(_service())


def test_local_traffic() -> None:
    local = _service(type="LoadBalancer", externalTrafficPolicy="Local")
    assert services.is_external_local(local) and services.needs_health_check_port(local)
    assert not services.is_external_local(_service(externalTrafficPolicy="Local"))
    assert services.is_internal_local(_service(internalTrafficPolicy="Local"))


def test_a_service_without_selector_selects_nothing() -> None:
    assert not services.selects(_service(), {"app": "web"})
    assert services.selects(_service(selector={"app": "web"}), {"app": "web", "x": "y"})


def test_families_follow_the_addresses_until_they_are_written_down() -> None:
    assert services.ip_families(_service(clusterIPs=["10.0.0.1", "fd00::1"])) == ["IPv4", "IPv6"]
    assert services.ip_families(_service(clusterIP="None")) == ["IPv4"]


def test_target_ports_by_number_and_by_name() -> None:
    ports = [{"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]
    pod: Json = {"spec": {"containers": [{"name": "c", "ports": ports}]}}
    assert services.target_port(pod, {"port": 80}) == 80
    assert services.target_port(pod, {"port": 80, "targetPort": 8000}) == 8000
    assert services.target_port(pod, {"port": 80, "targetPort": "http"}) == 8080
    assert services.target_port(pod, {"port": 80, "targetPort": "dns"}) is None
    assert services.target_port(pod, {"port": 80, "targetPort": "dns", "protocol": "UDP"}) == 53


@pytest.mark.parametrize(
    ("ready", "deleting", "publish", "wanted"),
    [
        (True, False, False, (True, True, False)),
        (False, False, False, (False, False, False)),
        (True, True, False, (False, True, True)),
        (False, False, True, (True, False, False)),
    ],
)
def test_endpoint_conditions(ready: bool, deleting: bool, publish: bool, wanted: tuple[bool, ...]) -> None:
    pod: Json = {"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": str(ready)}]}}
    if deleting:
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    conditions = services.endpoint_conditions(pod, publish)
    assert (conditions["ready"], conditions["serving"], conditions["terminating"]) == wanted


def test_access_modes_print_in_a_fixed_order() -> None:
    assert (
        volumes.access_modes(["ReadWriteOncePod", "ReadWriteMany", "ReadWriteMany", "ReadWriteOnce"])
        == "RWO,RWX,RWOP"
    )
    assert volumes.access_modes(None) == ""


def test_claims_of_a_pod() -> None:
    spec = {
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "pgdata"}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
        ]
    }
    pod: Json = {"metadata": {"name": "db"}, "spec": spec}
    assert list(volumes.claim_names(pod)) == [("pgdata", False), ("db-scratch", True)]
    assert [volumes.source_of(volume) for volume in volumes.volumes(pod)] == [
        "persistentVolumeClaim",
        "emptyDir",
        "ephemeral",
    ]


def test_the_empty_class_is_a_choice() -> None:
    assert not volumes.claim_has_class({"metadata": {}, "spec": {}})
    assert volumes.claim_has_class({"metadata": {}, "spec": {"storageClassName": ""}})
    beta = {
        "metadata": {"annotations": {volumes.BETA_STORAGE_CLASS: "old"}},
        "spec": {"storageClassName": "new"},
    }
    assert volumes.claim_class(beta) == "old"


def test_a_volume_is_bound_to_the_claim_with_its_uid() -> None:
    claim: Json = {"metadata": {"namespace": "a", "name": "c", "uid": "1"}}
    volume: Json = {"spec": {"claimRef": {"namespace": "a", "name": "c"}}}
    assert volumes.is_bound_to(volume, claim)
    volume["spec"]["claimRef"]["uid"] = "2"
    assert not volumes.is_bound_to(volume, claim)


def test_in_tree_plugins_are_known_by_their_driver() -> None:
    assert volumes.csi_driver({"awsElasticBlockStore": {"volumeID": "v"}}) == "ebs.csi.aws.com"
    assert volumes.csi_driver({"csi": {"driver": "d"}}) == "d"
    assert volumes.csi_driver({"hostPath": {}}) is None


def test_names_of_resource_claims() -> None:
    pod: Json = {
        "metadata": {"uid": "u"},
        "status": {
            "resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "db-gpu-x"}, {"name": "none"}]
        },
    }
    assert resource_claims.claim_name(pod, {"name": "fixed", "resourceClaimName": "mine"}) == "mine"
    assert resource_claims.claim_name(pod, {"name": "gpu", "resourceClaimTemplateName": "t"}) == "db-gpu-x"
    assert resource_claims.claim_name(pod, {"name": "none"}) == ""
    assert resource_claims.claim_name(pod, {"name": "later"}) is None


def test_reservation_is_by_uid_and_bounded() -> None:
    claim: Json = {"status": {"allocation": {}, "reservedFor": [{"uid": "u"}]}}
    assert resource_claims.is_allocated(claim)
    assert resource_claims.is_reserved_for(claim, {"metadata": {"uid": "u"}})
    assert not resource_claims.is_reserved_for(claim, {"metadata": {"uid": "v"}})
    claim["status"]["reservedFor"] *= resource_claims.MAX_RESERVED_FOR
    assert not resource_claims.can_be_reserved(claim)
