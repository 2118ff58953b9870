"""Proofs that the numbers are right, for our models and for others, and what they do not cover.

Each proof is a function that gives ``result.Proof``; ``result.report`` draws them.
"""
