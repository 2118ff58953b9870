"""Proofs that the numbers are right, for our models and for others, and what they do not cover.

A new proof is one new file in this folder. It has two things:

    ORDER = 55                     # its place among the proofs
    def my_proof(subject): ...     # named as the file; gives a ``result.Proof``, or a list of them

A proof that trains has ``TRAINS = True`` too. A proof that needs what an objective does not have
raises ``result.NotChecked``; one that says nothing about a kind of objective gives an empty list.
Files without ORDER are helpers.
"""

from minicpt.proofs.suite import verify

__all__ = ["verify"]
