"""Keeps the workers of a stage alive: replicas under fixed ids, and warm standbys that take over a dead one's."""
