"""What `iogate doctor` looks at, a file a part of the configuration."""
