"""Measurements of what the tests cannot say with a yes or no. Run one by `python -m benchmarks.<name> --help`."""
