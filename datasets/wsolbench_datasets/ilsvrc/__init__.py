"""`ilsvrc`: ImageNet's localisation challenge, from the reference's metadata or from its archives."""
