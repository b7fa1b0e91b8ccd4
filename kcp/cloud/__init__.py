"""The cloud controller manager's seam: provider interface and its controllers. Nothing is built here yet."""
