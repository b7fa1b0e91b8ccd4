"""The scheduler: decides one pod at a time, exactly, over arrays of all nodes; bindings are committed in batches."""
