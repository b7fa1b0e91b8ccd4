"""Claims and volumes: binding them, making local-path volumes, claims of ephemeral volumes."""

from kcp.controllers.persistent_volume import ephemeral
from kcp.controllers.persistent_volume.binder import CONTROLLER

__all__ = ["CONTROLLER", "ephemeral"]
