"""The command line: one file a verb, and the only place that turns a name into a model or an
objective. Nothing imports it.

A verb's module has ``add(verbs)``, which adds its parser, and ``run(arguments) -> int``, which
does the work and returns the exit status.
"""
