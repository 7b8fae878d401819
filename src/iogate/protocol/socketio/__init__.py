"""Socket.IO v5, without I/O: packets, the JSON parser, and the namespaces of a connection."""
