"""Engine.IO sessions: frames in, packets out, upgrade, heartbeat, close. They know the protocol, and no identities."""
