"""What people may do (`PERMISSIONS`), and the roles that let them (`ROLES`)."""

PERMISSIONS: dict[str, str] = {}

ROLES: dict[str, list[str]] = {}
