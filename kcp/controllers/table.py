"""Every controller, in the order of Kubernetes' own list."""

from __future__ import annotations

from kcp.controllers import (
    deployment,
    endpointslice,
    garbage_collector,
    namespace,
    node_lifecycle,
    replicaset,
    root_ca,
    service_account,
    taint_eviction,
)
from kcp.controllers.sources import Controller

CONTROLLERS: tuple[Controller, ...] = (
    endpointslice.CONTROLLER,
    namespace.CONTROLLER,
    service_account.CONTROLLER,
    garbage_collector.CONTROLLER,
    deployment.CONTROLLER,
    replicaset.CONTROLLER,
    node_lifecycle.CONTROLLER,
    taint_eviction.CONTROLLER,
    root_ca.CONTROLLER,
)


def by_name(name: str) -> Controller:
    """The controller of that name, with or without its `-controller` ending. Raises KeyError for an unknown one."""
    for controller in CONTROLLERS:
        if name in (controller.name, controller.name.removesuffix("-controller")):
            return controller
    raise KeyError(name)
