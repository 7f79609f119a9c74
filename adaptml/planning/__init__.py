"""Memory, time and cost of a run, said before it is asked for. Pure."""
