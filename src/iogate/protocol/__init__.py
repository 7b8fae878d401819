"""Engine.IO and Socket.IO as pure code: bytes in, packets out. No I/O, no clock, no randomness, no authentication."""
