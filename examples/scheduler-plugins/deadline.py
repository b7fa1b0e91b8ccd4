"""Places pods so that they finish in time, and keeps fast nodes free for those that need them.

Annotations of a pod:   deadline.example.com/work: "600"       seconds that it takes on a node of speed 1
                        deadline.example.com/within: "900"     seconds after which it must have finished
Label of a node:        deadline.example.com/speed: "2"
Pods with work that are on a node are done one after the other. There is no clock in here: what counts is the work that lies
on a node at the moment, not how far it is.
"""

from kcp.scheduler.framework.user_plugin import Unresolvable

WORK = "deadline.example.com/work"
WITHIN = "deadline.example.com/within"
SPEED = "deadline.example.com/speed"


def seconds(pod, name):
    return float((pod["metadata"].get("annotations") or {}).get(name, 0))


def finishes_after(pod, node):
    """(with what is there, on the empty node), in seconds"""
    speed = float(node.labels.get(SPEED, 1))
    waiting = sum(seconds(other, WORK) for other in node.pods)
    return (waiting + seconds(pod, WORK)) / speed, seconds(pod, WORK) / speed


class Deadline:
    def filter(self, pod, node):
        within = seconds(pod, WITHIN)
        if not within:
            return None
        after, at_best = finishes_after(pod, node)
        if at_best > within:
            return Unresolvable("node(s) were too slow for the pod's deadline")
        if after > within:
            return "node(s) would finish the pod after its deadline"
        return None

    def score(self, pod, node):
        """The node that is done just in time is the best: faster ones stay free."""
        within = seconds(pod, WITHIN)
        return int(100 * finishes_after(pod, node)[0] / within) if within else 0
