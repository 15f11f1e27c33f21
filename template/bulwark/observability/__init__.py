"""Logs and metrics: what a process writes about itself."""
