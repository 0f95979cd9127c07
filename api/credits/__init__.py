"""Who may spend how much: admission and reservations against the budget of a session."""
