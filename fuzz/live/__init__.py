"""Fuzz a live server: strangers over real connections, a good client in between, and a look at what is left of them."""
