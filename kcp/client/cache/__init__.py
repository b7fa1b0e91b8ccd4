"""Reflector, DeltaFIFO, Indexer, SharedInformer, Lister: a local, indexed, always-consistent copy of a resource."""
