"""iogate beside its peers, on this machine: `python -m benchmarks.compare --help`."""
