"""A Deployment controller that never makes a ReplicaSet smaller: what would a rollout be like?

kcp replay incident.kcplog --swap deployment=examples/what-if/keep_old.py:plan
"""

from kcp.controllers import effects as fx
from kcp.controllers.deployment import CONTROLLER


def plan(key, view, env):
    """As usual, but what makes a ReplicaSet smaller is left out."""
    usual, outcome = CONTROLLER.plan(key, view, env), None
    while (effect := fx.advance(usual, outcome)) is not None:
        if makes_smaller(effect, view):
            outcome = fx.Outcome(skipped=True)
        else:
            outcome = yield effect


def makes_smaller(effect, view):
    if not isinstance(effect, fx.Update) or effect.resource != "replicasets.apps":
        return False
    metadata = effect.object["metadata"]
    before = view.replicasets.get(f"{metadata['namespace']}/{metadata['name']}")
    return before is not None and effect.object["spec"]["replicas"] < before["spec"]["replicas"]
