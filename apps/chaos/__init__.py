"""Breaks a deployment on purpose, and tells whether its clients noticed more than a pause."""
