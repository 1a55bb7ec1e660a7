"""Ways to differentiate a solve: each takes a Problem and returns its Outcome."""
