"""Node lifecycle: notices nodes that fell silent, says so in conditions and taints, zone by zone."""

from kcp.controllers.node_lifecycle.controller import CONTROLLER

__all__ = ["CONTROLLER"]
