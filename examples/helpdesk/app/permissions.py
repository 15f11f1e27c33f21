"""Your permissions (`PERMISSIONS`), and the roles that grant them (`ROLES`)."""

PERMISSIONS: dict[str, str] = {
    "tickets:read": "Read the tickets of your organization",
    "tickets:write": "Write tickets and comments",
    "tickets:all": "Read and answer the tickets of all organizations",
    "organizations:write": "Add organizations and their members",
}

ROLES: dict[str, list[str]] = {
    "customer": ["tickets:read", "tickets:write"],
    "agent": ["tickets:read", "tickets:write", "tickets:all", "organizations:write"],
}
