"""From a feeder to a radio instance, an allocation, the served power and what it is worth."""
