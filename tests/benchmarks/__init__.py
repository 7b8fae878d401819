"""The comparison with other servers: its arithmetic, and that its programs talk to each other. Nothing is timed."""
