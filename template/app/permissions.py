"""Your permissions (`PERMISSIONS`), and the roles that grant them (`ROLES`)."""

PERMISSIONS: dict[str, str] = {}

ROLES: dict[str, list[str]] = {}
