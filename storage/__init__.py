"""Databases on disk: opened, kept private and migrated in one way; and the forms in which signed messages lie there."""
