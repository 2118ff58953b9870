"""Reports: what the program shows of its objectives and of its runs, as text.

They return strings and plain data, and print nothing. Nothing but the command line imports them.
"""
