"""What clients without a good token cost the users who are in: latency and memory under each kind of attack."""
