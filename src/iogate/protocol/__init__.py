"""The two protocols as pure code: bytes in, packets out. No I/O, no clock, no randomness, and no idea of a token."""
