"""Other people's incidents: what a cluster that is not kcp left behind, as an ordinary log.

One file a format gives `Change`s (kcp.store.foreign); `formats` chooses it and writes the log. What no source tells,
the decisions, is inferred by `kcp.replay.inferred`, which says so.
"""
