"""Correct second derivatives: the functions and the context that give them, and the check of them."""
