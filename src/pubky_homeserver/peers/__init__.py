"""Homeservers that trust each other: following their accounts, and letting them follow ours."""
