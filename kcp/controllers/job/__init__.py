"""Job: runs pods until enough of them have succeeded, or too many have failed."""

from kcp.controllers.job.controller import CONTROLLER

__all__ = ["CONTROLLER"]
