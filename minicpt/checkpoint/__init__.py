"""Checkpoints: the folder on the disk, the weights files in it, and Hugging Face's names."""

from minicpt.checkpoint.folder import (
    MANIFEST,
    RECORD,
    STATE,
    WEIGHTS,
    Checkpoint,
    check_export,
    clean,
    export,
    find,
    is_step,
    load,
    save,
    steps,
    trained_by,
    verify,
    write_manifest,
)
from minicpt.checkpoint.pieces import put

__all__ = [
    "MANIFEST",
    "RECORD",
    "STATE",
    "WEIGHTS",
    "Checkpoint",
    "check_export",
    "clean",
    "export",
    "find",
    "is_step",
    "load",
    "put",
    "save",
    "steps",
    "trained_by",
    "verify",
    "write_manifest",
]
