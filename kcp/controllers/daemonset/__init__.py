"""DaemonSet: one pod of a template on every node that takes it."""

from kcp.controllers.daemonset.controller import CONTROLLER

__all__ = ["CONTROLLER"]
