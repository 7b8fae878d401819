"""Socket.IO v5 without I/O: packets, the JSON and MessagePack parsers, and the namespaces of a connection."""
