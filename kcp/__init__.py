"""kcp: a Kubernetes-compatible control plane whose database is an append-only event log.

Rooms, bottom-up: base, schemas · machinery, wire · store, apis · api, client ·
controllers, scheduler, node, network, storage, cloud · controlplane · replay, web · cli, testing.
ARCHITECTURE.md tells what lives in each and which way imports point.
"""

__version__ = "0.1.0"
