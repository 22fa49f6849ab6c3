"""Machines that exist in the operator's memory alone: see README.md for what they are good for, and what not."""
