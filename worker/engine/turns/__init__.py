"""Whose turn it is: scheduler, fairness, groups, prompts' budgets, step times."""
