"""The append-only event log that stands in for etcd: append, read at a revision, feed, leases, history, export.

Knows keys, revisions and bytes; knows no kinds. `protocol.py` holds the whole design; drivers hold differences.
"""
