"""The kubelet: a node agent over the Runtime, Network and Volume protocols; `runtime/sim.py` runs no containers."""
