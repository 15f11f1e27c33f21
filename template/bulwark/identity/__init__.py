"""Accounts: sign-up, sign-in, passwords, second factors, sessions, roles and tokens.

Flask-Security-Too does what it can; `security` adapts it. This room uses `web` and the
rooms below. The pages for users who are signed in are in `account`, those for
administrators in `admin`.
"""
