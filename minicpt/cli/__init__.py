"""The command line: one file a verb. Nothing imports it.

A verb's module has ``add(verbs)``, which adds its parser, and ``run(arguments) -> int``, which
does the work and returns the exit status. ``main`` finds the verbs by their files.
"""
