"""Gives every node the score 1, as schedulers without priorities did (EqualPriority).

Kubernetes does the same by itself for a profile without score plugins.
"""

from __future__ import annotations

from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.pod_class import PodClass
from kcp.scheduler.terms import Ints


class Equal:
    name = "Equal"

    def static_score(self, framework: Framework, cls: PodClass) -> Ints | int | None:
        return 1
