"""The API server: one door for every write. Request chain, identity, admission, verbs, watch cache, discovery."""
