"""The conversation with the agent that runs in a booted ramdisk: what it asks of us, and what we ask of it.

The agent is a stock ironic-python-agent (IPA). Only its own API and Ironic's are spoken here, never our own dialect,
so that any ramdisk with a current IPA in it works.
"""
