"""The laboratory: what the commands in `hack/` share to bring up a control plane and a virtual rack.

Standard library only, so that the first command works, and says what is missing, before anything is installed;
`authority` and `generated` alone need the project's own environment.
"""
