"""Who computes. Every kind of cluster is a context manager that gives an `OpenCluster`; nothing else knows the kind."""
