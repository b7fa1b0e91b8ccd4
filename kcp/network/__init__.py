"""Pod and cluster network: CNI, service proxy, cluster DNS, NetworkPolicy. Nothing is built here yet."""
