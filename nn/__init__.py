"""What a training step is made of: layers, networks, losses, metrics, random numbers, replicas."""
