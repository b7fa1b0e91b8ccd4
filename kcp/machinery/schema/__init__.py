"""Structural schemas: compile OpenAPI definitions into trees, check and prune and default documents by them.

Built-in kinds and custom resources share the one tree, `compile.Schema`; what a kind's defaults and semantic rules
are lives in kcp.apis.
"""
