"""Backups: one file with all that a bridge cannot get again; put back, what was erased since is erased again."""
