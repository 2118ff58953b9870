"""What an objective hands over, held against the source text by rules written independently.

The rules stand in ``rules/``, one objective a file. They read the documents' own text and the
tokenizer, never the objective's code: where the objective says which token follows, the rule looks
it up in the text.
"""

from collections.abc import Iterator
from types import ModuleType

from minicpt.proofs import rules
from minicpt.proofs.result import NotChecked, Proof
from minicpt.proofs.subject import Subject

ORDER = 20
EPOCHS = 3


def batch_rules(subject: Subject) -> Proof:
    """Every passage of a few epochs, each as a batch of its own, against the objective's rule.

    Raises NotChecked where no rule was written for the objective.
    """
    known = rules.known()
    if subject.kind not in known:
        raise NotChecked(
            f"nobody wrote a rule for {subject.kind} (minicpt/proofs/rules/"
            f"{subject.kind.replace('-', '_')}.py), so its targets were not looked up in the text"
        )
    problems = list(broken(subject, known[subject.kind]))
    checked = sum(len(subject.passages(10**6, epoch)) for epoch in range(EPOCHS))
    if not checked:
        raise NotChecked("needs a passage; the objective makes none here")
    return Proof(
        name="batch rules",
        passed=not problems,
        compared=f"{checked} batches with the text they were made from, in {EPOCHS} epochs",
        numbers={"batches": checked, "broken rules": len(problems)},
        why="Targets, labels, candidates and their order are looked up in the text itself.",
        not_covered="Whether the rule that is asked for is a good objective.",
        message="; ".join(dict.fromkeys(problems[:2])),
        worst=len(problems),
        tolerance=0,
    )


def broken(subject: Subject, rules: ModuleType) -> Iterator[str]:
    """What is wrong with the batches, by the rules of the objective."""
    for epoch in range(EPOCHS):
        passages = subject.passages(10**6, epoch)
        for passage in passages:
            batch = subject.batch([passage], epoch)
            yield from (f"{what} ({passage.place})" for what in rules.rule(subject, passage, batch))
        if hasattr(rules, "rule_of_epoch"):
            yield from rules.rule_of_epoch(subject, passages)
