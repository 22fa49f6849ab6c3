"""What a stock ironic-python-agent lacks for our life-cycle, as its own kind of plug-in: a hardware manager.

It runs inside the ramdisk, not in the operator. `manager` alone imports the agent; everything that is decided is in
modules that import nothing but the standard library, so that it is tested without one.
"""
