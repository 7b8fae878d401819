"""The servers that are compared: the same application, written for each."""
