"""Engine.IO v4, without I/O: packets, payloads, what a request must say, and the life of a session."""
