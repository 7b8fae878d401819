"""Soak a live server: attacks, churn, refreshes and revocations at once, for as long as you like."""
