"""Requests and responses: access, headers, validation, errors and rate limits.

It uses the audit trail, mail, jobs and what is below them, but knows no users.
"""
