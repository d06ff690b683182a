"""Runs, checkpoints and other files on disk; and Ray."""
