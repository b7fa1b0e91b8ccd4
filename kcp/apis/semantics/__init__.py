"""Pure questions about built-in objects that more than one component asks (Kubernetes' component-helpers)."""
