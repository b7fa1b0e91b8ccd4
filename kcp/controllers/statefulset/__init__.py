"""StatefulSet: pods with names, storage and an order."""

from kcp.controllers.statefulset.controller import CONTROLLER

__all__ = ["CONTROLLER"]
