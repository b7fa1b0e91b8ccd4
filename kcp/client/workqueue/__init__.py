"""Queues of keys: de-duplicating, delaying, rate limited; fair between keys and between live and background work."""
