"""The order of the stages, the schedule, and what happens on failure."""
