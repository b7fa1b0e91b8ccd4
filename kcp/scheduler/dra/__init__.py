"""Devices for pods (dynamic resource allocation): pools of devices, what of them is taken, and who gets which.

`devices` folds slices and claims, `pools` tells what a node can reach, `allocator` searches, `results` writes an
allocation down, `binding` brings it into the log before the pod is bound. The plugin is `plugins/dynamic_resources.py`.
"""
