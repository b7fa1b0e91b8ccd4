"""What each stage of a request costs: CPU µs per pod create and per get, stage by stage, in one process without sockets.

    python benchmarks/api_stages.py [--rounds 2000] [--json FILE]

Every stage is called on its own, many times, on fresh inputs of the same shape; the best of five rounds counts, which is
what the code costs and not what the machine was busy with. `benchmarks/api_create.py` has the same path over TLS.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import anyio
import attrs
import uvloop
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.api_create import PODS, pod
from kcp.api.context import Call
from kcp.api.decoding import decode_object
from kcp.api.documents import private_copy
from kcp.api.filters.authentication import NOBODY
from kcp.api.negotiation import render
from kcp.api.options import write_options
from kcp.api.registry import attributes_of, begin, draft, result_of, with_managed_fields
from kcp.api.request_info import parse_query, request_info
from kcp.api.transaction import Written
from kcp.apis.semantics.facts import FACTS
from kcp.base import interpreter
from kcp.base.certs import Authority, load_certificate
from kcp.base.clock import SystemClock
from kcp.base.entropy import SystemEntropy
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions
from kcp.machinery.document import Document, normal
from kcp.machinery.meta import validate_object_meta
from kcp.store.facts import projections
from kcp.store.open import open_store
from kcp.store.protocol import Key, Op, Operation, Put
from kcp.wire.http import Request, Response

BEST_OF = 5
BODIES = 40_000
HEADERS = {"content-type": "application/json", "accept": "application/json", "user-agent": "bench/1.0"}


def cpu_us(work: Callable[[Any], Any], inputs: Callable[[], list[Any]]) -> float:
    """CPU per call, the best of some rounds. `inputs` makes fresh ones, outside the measurement."""
    best = float("inf")
    for _ in range(BEST_OF):
        prepared = inputs()
        started = time.process_time()
        for each in prepared:
            work(each)
        best = min(best, (time.process_time() - started) / len(prepared) * 1e6)
    return best


@attrs.frozen
class Bench:
    cluster: Cluster
    rounds: int
    certificate: bytes
    bodies: list[bytes]

    def call(self, number: int, method: str = "POST") -> Call:
        """A call as the chain gets it."""
        path = PODS if method == "POST" else f"{PODS}/bench-000001"
        body = self.bodies[number % len(self.bodies)] if method == "POST" else b""
        request = Request(method, path, "", dict(HEADERS), body, peer_certificate=self.certificate)
        params, repeated = parse_query("")
        call = Call(request, request_info(request, params), NOBODY, params=params, repeated=repeated)
        call.kind = self.cluster.catalog.by_resource("", "v1", "pods")
        call.user = ADMIN
        return call

    def write(self, call: Call) -> Any:
        assert call.kind is not None
        return begin(self.cluster.server, call, call.kind, write_options(call, "CreateOptions"))

    def stages(self) -> dict[str, float]:
        """The create path, in order."""
        server, calls = self.cluster.server, [self.call(number) for number in range(self.rounds)]
        kind = calls[0].kind
        assert kind is not None
        strategy = kind.strategy
        objects = [decode_object(server, call, kind) for call in calls]
        write = self.write(calls[0])
        drafts = [draft(write, private_copy(obj)) for obj in objects]

        def copies(of: list[Any]) -> Callable[[], list[Any]]:
            return lambda: [private_copy(each) for each in of]

        def defaulted() -> list[Any]:
            made = copies(objects)()
            for each in made:
                each["metadata"]["namespace"] = "default"
                strategy.default(each)
            return made

        def admitted() -> list[Any]:
            return [
                attributes_of(write, "CREATE", each["metadata"]["name"], each, None) for each in defaulted()
            ]

        questions = [attributes_of(write, "CREATE", each["metadata"]["name"], each, None) for each in drafts]
        bodies = [normal(each) for each in drafts]
        written = Written(Document(bodies[0], 1, drafts[0]), 1, Op.ADDED)
        return {
            "filters, in and out": cpu_us(
                self._through_filters, lambda: [self.call(n) for n in range(self.rounds)]
            ),
            "path, query, call": cpu_us(self.call, lambda: list(range(self.rounds))),
            "decode and check types": cpu_us(lambda call: decode_object(server, call, kind), lambda: calls),
            "options and write": cpu_us(self.write, lambda: calls),
            "defaults": cpu_us(strategy.default, copies(objects)),
            "managed fields": cpu_us(lambda obj: with_managed_fields(write, None, obj), defaulted),
            "mutating admission": cpu_us(server.admission.mutate, admitted),
            "prepare (status, QoS)": cpu_us(strategy.prepare_create, copies(drafts)),
            "validate metadata": cpu_us(
                lambda obj: validate_object_meta(
                    obj["metadata"], namespaced=True, name_rule=strategy.name_rule
                ),
                lambda: drafts,
            ),
            "validate the pod, warnings": cpu_us(
                lambda obj: (strategy.validate_create(obj), strategy.warnings(obj, None)), lambda: drafts
            ),
            "validating admission": cpu_us(server.admission.validate, lambda: questions),
            "settle (twice)": 2
            * cpu_us(lambda each: server.admission.settle(each, server.store), lambda: questions),
            "encode": cpu_us(normal, lambda: drafts),
            "render": cpu_us(
                lambda call: render(server, call, result_of(write, written, 201)), lambda: calls
            ),
        }

    def _through_filters(self, call: Call) -> None:
        """Authentication to authorization, fairness, metrics; nothing in it waits."""
        chain = self.cluster.handler.chain  # type: ignore[attr-defined]
        entering = chain.enter(call)
        try:
            entering.send(None)
        except StopIteration:
            chain.leave(call, Response(201))
            chain.release(call)

    async def append_us(self, offset: int) -> float:
        """The writer's share: deciding, indexing, publishing and the rows, 32 writes at a time."""
        server = self.cluster.server
        write = self.write(self.call(0))
        operations = [self._operation(write, number) for number in range(offset, offset + self.rounds)]
        started = time.process_time()
        for at in range(0, len(operations), 32):
            await asyncio.gather(*(server.store.append(each) for each in operations[at : at + 32]))
        return (time.process_time() - started) / len(operations) * 1e6

    def _operation(self, write: Any, number: int) -> Operation:
        value = draft(write, decode_object(self.cluster.server, self.call(number), write.kind))
        put = Put(normal(value), value)
        return Operation(Key("pods", "default", value["metadata"]["name"]), lambda current, head: put)

    async def whole_us(self, method: str, offset: int) -> float:
        """The handler with everything in it, as an administrator with a client certificate, answers in bytes."""
        handler = self.cluster.handler
        requests = [self.call(number, method).request for number in range(offset, offset + self.rounds)]
        started = time.process_time()
        for at in range(0, len(requests), 32):
            await asyncio.gather(*(handler(each) for each in requests[at : at + 32]))
        return (time.process_time() - started) / len(requests) * 1e6


async def measure(rounds: int) -> dict[str, float]:
    clock, entropy = SystemClock(), SystemEntropy()
    with tempfile.TemporaryDirectory() as directory:
        store = open_store(directory, clock=clock, entropy=entropy, projections=projections(FACTS))
        authority = Authority.create("bench", clock)
        certificate, _ = authority.issue("admin", ["kubeadm:cluster-admins"])
        options = ClusterOptions(client_ca_pem=authority.certificate_pem, controllers=(), scheduler=False)
        cluster = Cluster.build(store, clock, entropy, options)
        figures: dict[str, float] = {}
        async with anyio.create_task_group() as group:
            await group.start(cluster.run)
            account = {"metadata": {"name": "default", "namespace": "default"}}
            await cluster.client(ADMIN).create("serviceaccounts", account, "default")
            der = load_certificate(certificate).public_bytes(Encoding.DER)
            bench = Bench(cluster, rounds, der, [pod(number) for number in range(BODIES)])
            interpreter.settle()
            figures = bench.stages()
            figures["append (SQLite)"] = min([await bench.append_us(20_000 + n * rounds) for n in range(3)])
            figures["whole create"] = min([await bench.whole_us("POST", n * rounds) for n in range(3)])
            figures["whole get"] = min([await bench.whole_us("GET", n) for n in range(5)])
            group.cancel_scope.cancel()
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(measure(arguments.rounds))
    for name, value in figures.items():
        print(f"{name:28}{value:9.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
