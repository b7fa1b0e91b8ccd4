"""Every controller, in the order of Kubernetes' own list."""

from __future__ import annotations

from kcp.controllers import (
    bootstrap_token,
    certificates,
    cluster_role_aggregation,
    cronjob,
    daemonset,
    deployment,
    device_taint_eviction,
    disruption,
    endpoints,
    endpointslice,
    garbage_collector,
    job,
    namespace,
    node_ipam,
    node_lifecycle,
    persistent_volume,
    pod_gc,
    protection,
    replicaset,
    replicationcontroller,
    resource_claim,
    resource_quota,
    root_ca,
    service_account,
    service_account_tokens,
    service_cidr,
    statefulset,
    taint_eviction,
    ttl,
    ttl_after_finished,
)
from kcp.controllers.sources import Controller

CONTROLLERS: tuple[Controller, ...] = (
    service_account_tokens.CONTROLLER,
    endpoints.CONTROLLER,
    endpointslice.CONTROLLER,
    endpointslice.MIRRORING,
    replicationcontroller.CONTROLLER,
    pod_gc.CONTROLLER,
    resource_quota.CONTROLLER,
    namespace.CONTROLLER,
    service_account.CONTROLLER,
    garbage_collector.CONTROLLER,
    daemonset.CONTROLLER,
    job.CONTROLLER,
    deployment.CONTROLLER,
    replicaset.CONTROLLER,
    disruption.CONTROLLER,
    statefulset.CONTROLLER,
    cronjob.CONTROLLER,
    certificates.SIGNING,
    certificates.APPROVING,
    certificates.CLEANER,
    ttl.CONTROLLER,
    node_ipam.CONTROLLER,
    node_lifecycle.CONTROLLER,
    taint_eviction.CONTROLLER,
    persistent_volume.CONTROLLER,
    cluster_role_aggregation.CONTROLLER,
    protection.CLAIM_CONTROLLER,
    protection.VOLUME_CONTROLLER,
    ttl_after_finished.CONTROLLER,
    root_ca.CONTROLLER,
    persistent_volume.ephemeral.CONTROLLER,
    resource_claim.CONTROLLER,
    device_taint_eviction.CONTROLLER,
    service_account_tokens.CLEANER,
    protection.ATTRIBUTES_CONTROLLER,
    service_cidr.CONTROLLER,
)
"""Those that run unless told otherwise."""

OFF_BY_DEFAULT: tuple[Controller, ...] = (bootstrap_token.SIGNER, bootstrap_token.CLEANER)


def by_name(name: str) -> Controller:
    """The controller of that name, with or without its `-controller` ending. Raises KeyError for an unknown one."""
    for controller in (*CONTROLLERS, *OFF_BY_DEFAULT):
        if name in (controller.name, controller.name.removesuffix("-controller")):
            return controller
    raise KeyError(name)
