"""Which images a run uses, and who chooses its checkpoint, its threshold and its hyper-parameters."""
