"""The gate: attempts, verdicts, identities and their end, limits. It knows sessions and `iogate.auth`."""
