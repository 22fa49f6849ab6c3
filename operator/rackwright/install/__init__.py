"""What the steps of a deployment, a release and a rescue say to the agent, and what its answers mean.

Nothing here connects anywhere or decides when: functions from what is declared to the parameters of a command, and
from its result to evidence or a fault. `phone_home` is the one place that is called from outside, by the system
that was installed.
"""
