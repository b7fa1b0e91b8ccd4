"""Workloads of Kubernetes' scheduler_perf, by name and shape, and harnesses that run them."""
