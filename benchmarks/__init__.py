"""Scripts that print ratios, each against a named baseline in the same run; the last line is one JSON object."""
