"""The columns of the log's tables, in their order, as plain words.

`tables` says the same to SQLAlchemy, with types and indexes; statements that need no more than names take them from
here, so that a daemon on SQLite never loads SQLAlchemy. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping

COLUMNS: Mapping[str, tuple[str, ...]] = {
    table: tuple(names.split())
    for table, names in {
        "kinds": "kind_id grp version kind plural namespaced history_class",
        "actors": "actor_id username groups user_agent field_manager source_ip",
        "objects": "oid kind_id ns name uid rv delete_rv expires_us",
        "events": "rv oid op prev_rv ts_us actor_id decision_id request_id flags body body_raw",
        "leases": "oid rv holder epoch acquired_us renewed_us ttl_ms body",
        "decisions": "decision_id controller epoch key trigger frontier now_us duration_us effects effects_digest memo"
        " memo_digest code_hash config_hash rv_after first_rv last_rv",
        "inputs": "rv_after seq kind payload",
        "ticks": "second rv",
        "facts_pod": "oid rv node phase ready restarts reason ip deleting",
        "facts_node": "oid rv ready unschedulable taints pressure",
        "facts_owner": "oid rv owner_uid controller block",
    }.items()
}

FACTS = ("facts_pod", "facts_node", "facts_owner")
"""Tables whose rows follow from events; oid and rv come first."""

REDACTED = 1
"""Flag of an event row whose body was masked by an export."""
PURGED = 2
"""Flag of an event row whose body was taken away by a purge."""
UNTOLD = 4
"""Flag of an event row of an import whose source told that the object changed, but not to what."""
