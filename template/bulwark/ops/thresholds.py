"""When the state of a part needs attention.

The health check, the administrators' overview and the alerts share these values. The
template has a test that compares deploy/monitoring/rules.yml with them.
"""

from datetime import timedelta

LEAST_CERTIFICATE_LIFE = 0.25  # the share of its lifetime; renewal starts at a third
AUDIT_CHECK_AGE = timedelta(hours=1)  # new rows are checked every five minutes
BACKUP_AGE = timedelta(hours=26)  # a backup is created each night
DRILL_AGE = timedelta(days=40)  # a backup is restored as a test each month
HEARTBEAT_AGE = timedelta(minutes=5)  # a worker sends a heartbeat each minute
QUEUED_MAIL_AGE = timedelta(minutes=15)
KEY_AGE = timedelta(days=400)  # keys are replaced once a year: docs/asvs.md
