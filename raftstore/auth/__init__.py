"""Who may do what: users, roles, permissions on key ranges, passwords and tokens."""
