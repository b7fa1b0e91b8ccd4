"""Schema data built at install time from kubernetes-validate; git-ignored."""
