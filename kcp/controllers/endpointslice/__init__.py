"""EndpointSlice: the addresses behind a Service, in slices of at most a hundred."""

from kcp.controllers.endpointslice.controller import CONTROLLER

__all__ = ["CONTROLLER"]
