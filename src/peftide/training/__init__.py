"""Training: batches around proteins, the step, the loop, and what surrounds a run."""
