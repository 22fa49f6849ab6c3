"""What the operator counts, as Prometheus reads it at `/metrics`.

Every label has a closed set of values, machines are never one of them, and so ten thousand machines are no more series
than ten (`families.MOST`); nobody on the machines' network can make the list grow either. What there is to be read is
in one table, `families.FAMILIES`, of which the documentation's is made.
"""

from rackwright.metrics.families import Outcome, Result
from rackwright.metrics.metrics import PATH, Metrics

__all__ = ["PATH", "Metrics", "Outcome", "Result"]
