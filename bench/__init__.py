"""`make bench`: what the queue does in a second, beside its alternatives, on one machine in one run."""
