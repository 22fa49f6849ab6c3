"""The laboratory: what the commands in `hack/` share to bring up a control plane and a virtual rack.

Standard library only, so that the first command works before anything is installed; `rich` draws the
progress once the project's own environment exists.
"""
