"""Objectives: what the model reads, and which positions have a target. One file each.

A module of this package is an objective when it has two names:

Settings   a frozen dataclass of its own settings, each of which becomes a flag
Objective  built from ``(tokenizer, settings)``, with

    architecture   the model it needs: "encoder", "decoder" or "encoder-decoder"
    whole_text     whether its targets are all of the text, so that its loss has a meaning in bits
                   per byte
    length         the most positions that the model reads at once
    plan(corpus, seed, epoch) -> Plan: the epoch's passages in their order, like lengths together
    places(passage) -> (N,) int64, only with ``whole_text``: for each target of a passage, in the
                   order of the positions, the number of the corpus' token that it stands for; -1
                   for end-of-text, which stands for no text
    batch(passages, generators) -> Batch, with one random generator for each passage
    visibility(batch) -> head -> input stream -> (B, T, length of the stream) bool: what each
                   target may see; the per-token loss, ``explain`` and the proofs all read it
    generate(model, text, sampling, generator) -> str, what a trained model does with a text
    probe(model, passage, sampling, generator) -> str, the same on held-out text while training

and, for what ``explain`` says, where it is not the default:

    unit           what a passage of its plan is ("passage")
    classes        head -> the names of its classes, for a head whose classes are no tokens
    fates(batch)   head -> for each row {position: "hidden", "replaced" or "kept"}, what became of
                   the tokens that the head predicts, for a head that predicts what is read

Nothing else knows the names of the objectives: a new file is found, gets its command line and is
tested by the contract tests. An objective changes nothing that it is given.
"""
