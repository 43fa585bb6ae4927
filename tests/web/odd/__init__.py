"""Odd requests, made by hypothesis: each function is about one thing that a client can say, from valid to nonsense.

They draw from strategies that are made once: making and checking a strategy takes longer than drawing from it.
"""
