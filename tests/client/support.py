"""Builders that the client's tests share."""

from __future__ import annotations

from typing import Any

from kcp.base.clock import LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.client.cache.shared_informer import SharedInformer
from kcp.client.client import Client
from kcp.client.transport import InProcessTransport
from tests.support.fake_api import FakeApi

Json = dict[str, Any]


def client_of(api: FakeApi) -> Client:
    return Client(InProcessTransport(api, identity="tester", in_process=api.in_process))


def pod(name: str, namespace: str = "default", **spec: Any) -> Json:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def informer_of(api: FakeApi, resource: str = "pods", **options: Any) -> SharedInformer:
    return SharedInformer(client_of(api), resource, clock=LoopClock(), entropy=SeededEntropy(1), **options)


class Told:
    """A handler that writes down what it is told, as `+name`, `~name`, `-name`."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def __call__(self, old: Json | None, new: Json | None) -> None:
        sign = "+" if old is None else "-" if new is None else "~"
        obj = new or old
        assert obj is not None
        self.log.append(sign + obj["metadata"]["name"])

    def take(self) -> list[str]:
        log, self.log = self.log, []
        return log
