"""Parts of a training step: layers, networks, losses, metrics, random numbers, replicas."""
