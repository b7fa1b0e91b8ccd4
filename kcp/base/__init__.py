"""What has no Kubernetes knowledge: clock, chance, the deterministic loop, tasks, certificates, settings, logs, metrics.

The only room where wall time, randomness, threads and process settings exist; everyone else is handed them.
"""

from kcp.base import lean_structlog as lean_structlog
