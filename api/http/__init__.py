"""The HTTP surface: thin routes, one file per subject; schemas with bounds; one handler for every error."""
