"""Error rates of the gate."""
