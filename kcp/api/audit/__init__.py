"""The audit log of Kubernetes: which requests a policy wants told, what their events say, the file that they go to.

Who changed what is in the event log in any case; this is for reads, refusals, whole objects, and tools that expect the
file. `kcp.api.filters.audit` has the place in the chain.
"""
