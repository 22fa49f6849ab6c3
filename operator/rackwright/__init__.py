"""Rackwright: the life-cycle of physical servers as a declarative Kubernetes reconciler."""

__version__ = "0.1.0"
