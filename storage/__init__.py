"""What lies on disk: whole files or none, runs, checkpoints; and Ray."""
