"""The checks of `iogate doctor`: one module per part of the configuration."""
