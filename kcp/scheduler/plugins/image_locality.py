"""Prefers nodes that already have the pod's images, the more the larger and the more widespread these are.

Source: k8s v1.36 pkg/scheduler/framework/plugins/imagelocality.
"""

from __future__ import annotations

import numpy as np

from kcp.scheduler.framework.plugin import MAX_SCORE
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.pod_class import PodClass
from kcp.scheduler.terms import Ints

_MIB = 1024 * 1024
LEAST_BYTES = 23 * _MIB
MOST_BYTES_PER_CONTAINER = 1000 * _MIB


class ImageLocality:
    name = "ImageLocality"

    def static_score(self, framework: Framework, cls: PodClass) -> Ints | int | None:
        state = framework.state
        sums: Ints | None = None
        for image in cls.images:
            there, nodes = state.image(image)
            if not there:
                continue
            if sums is None:
                sums = np.zeros(len(state), np.int64)
            spread = float(nodes) / float(len(state))
            for index, size in there:
                sums[index] += int(float(size) * spread)
        if sums is None:
            return 0
        most = MOST_BYTES_PER_CONTAINER * cls.image_containers
        clamped = np.clip(sums, LEAST_BYTES, most)
        scaled: Ints = MAX_SCORE * (clamped - LEAST_BYTES) // (most - LEAST_BYTES)
        return scaled
