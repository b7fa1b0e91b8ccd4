"""CEL as the language of selectors."""

from __future__ import annotations

from kcp.scheduler.dra.pools import Device
from kcp.scheduler.dra.selectors import Selector, SelectorFailed, SelectorRefused


def compile_selector(expression: str) -> Selector:
    """Raises SelectorRefused."""
    from kcp.machinery.cel import device as cel  # the language is loaded when it is first spoken
    from kcp.machinery.cel.values import CelError

    try:
        program = cel.compile_selector(expression)
    except cel.SelectorError as error:
        raise SelectorRefused(str(error)) from error

    def select(device: Device) -> bool:
        try:
            if device.seen is None:
                device.seen = cel.device_of(device.driver, device.object)
            return cel.matches(program, device.seen)
        except CelError as error:
            raise SelectorFailed(str(error)) from error

    return select
