"""Ways to other libraries, each loaded when it is imported by name."""
