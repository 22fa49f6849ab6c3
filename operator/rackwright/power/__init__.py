"""How the operator moves a machine's power: the port, the way to each BMC, and a driver per protocol.

Callers need `connect.Connections` and what `port` declares; nothing else here is meant for them.
"""
