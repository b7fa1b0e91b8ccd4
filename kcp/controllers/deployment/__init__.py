"""Deployment: rolls one pod template after another out through ReplicaSets."""

from kcp.controllers.deployment.controller import CONTROLLER

__all__ = ["CONTROLLER"]
