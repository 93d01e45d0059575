"""Rules for starting batches, against each other, in simulation."""
