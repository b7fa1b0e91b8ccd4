"""EndpointSlice: the addresses behind a Service, in slices of at most a hundred; and mirrors of hand-written Endpoints."""

from kcp.controllers.endpointslice import mirroring
from kcp.controllers.endpointslice.controller import CONTROLLER

MIRRORING = mirroring.CONTROLLER

__all__ = ["CONTROLLER", "MIRRORING"]
