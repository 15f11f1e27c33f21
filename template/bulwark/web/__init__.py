"""Requests and responses: access, headers, validation, errors and rate limits.

Uses the audit trail, mail, jobs and everything below; knows no users.
"""
