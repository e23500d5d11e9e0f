"""Error rates of what decides by itself, and claims that hold or do not."""
