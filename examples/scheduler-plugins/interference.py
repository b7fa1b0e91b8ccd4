"""Keeps pods apart that disturb each other: a cache and a batch job fight for memory bandwidth, two web servers do not.

The label interference.example.com/class of a pod says what kind of neighbour it is. How much a neighbour hurts stands in
the arguments of the plugin (`pluginConfig`), else in HARM below. This one looks at all nodes at once.
"""

import numpy as np

CLASS = "interference.example.com/class"
HARM = {"latency": {"batch": 40, "cache": 10}, "batch": {"latency": 40, "batch": 5}, "cache": {"batch": 20}}


def kind(pod):
    return (pod["metadata"].get("labels") or {}).get(CLASS, "")


class Interference:
    def __init__(self, args=None):
        self.harm = (args or {}).get("harm") or HARM
        self.limit = (args or {}).get("limit", 200)

    reason = "node(s) had too many pods that disturb this one"

    def filter_all(self, pod, nodes):
        return self.disturbance(pod, nodes) <= self.limit

    def score_all(self, pod, nodes):
        return -self.disturbance(pod, nodes)

    def normalize(self, scores):
        """The quietest node gets 100, the loudest 0."""
        low, high = min(scores), max(scores)
        return [100 * (score - low) // (high - low) if high > low else 100 for score in scores]

    def disturbance(self, pod, nodes):
        harm = self.harm.get(kind(pod), {})
        return np.array([sum(harm.get(kind(other), 0) for other in node.pods) for node in nodes], np.int64)
