"""Rules: what the batches of each objective must hold. One objective a file, of the same name.

A rule is written from the objective's definition and looks everything up in the text itself. A file
has

    rule(subject, passage, batch)     yields, in words, what is wrong with the batch of one passage
    rule_of_epoch(subject, passages)  the same for all passages of an epoch
    NEVER                             head -> the roles of tokens that it never predicts ("mask")
    WEIGHT                            head -> the mean weight of a target over many draws
    SETTINGS                          of its usual subjects, where the defaults would take long
    VARIANTS                          subject's name -> ``Variant``: settings with which the
                                      objective computes something else

All but the first may be absent. An objective without a rule is "not checked". Nothing else knows
the rules by name.
"""

from types import ModuleType

from minicpt.common import registry
from minicpt.proofs import rules


def known() -> dict[str, ModuleType]:
    """The rules by the names of their objectives."""
    return registry.modules(rules)
