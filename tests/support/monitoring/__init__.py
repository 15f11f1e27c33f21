"""What the tests know of the alert rules and dashboards that services ship."""
