"""Rackwright: the life-cycle of physical servers as a declarative Kubernetes reconciler."""
