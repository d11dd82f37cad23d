"""Who may do what: bearer tokens, the roles that they carry, and how fast a tenant may ask."""
