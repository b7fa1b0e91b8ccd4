"""The Common Expression Language as Kubernetes has it: parse, type check, compile to closures, evaluate on a budget.

`environment` is the door. `device` has the environment of DRA's selectors, `schema_types` makes types of OpenAPI
schemas, `libraries` are the functions beyond CEL's own. Nothing here knows which rules or policies exist, or keeps
programs: whoever evaluates an expression often keeps an LRU.
"""
