"""Engine.IO v4 without I/O: packets, payloads, checks of requests, and the state of a session."""
