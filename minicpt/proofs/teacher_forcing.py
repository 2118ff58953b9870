"""Teacher forcing: the second reason why one forward pass is enough.

The mask lets one pass hold the passes over all prefixes. But one pass also needs all its inputs
beforehand, and it has them because each position reads the true text. A model that reads its own
predictions needs the output of position t-1 before position t can begin: its losses come from T
passes, one after the other, and one pass over the true text gives other numbers.
"""

import torch
import torch.nn.functional as F

from minicpt.proofs.bounds import additions, gap, nats, tolerance
from minicpt.proofs.result import NotChecked, Proof
from minicpt.proofs.steps import in_steps, reads_its_targets, whole
from minicpt.proofs.subject import Subject

ORDER = 80
APART = 1e-3  # nats by which at least one loss must move for the demonstration to show anything
SHOWN = 6  # losses in the report


def teacher_forcing(subject: Subject) -> Proof | list[Proof]:
    """The same decoder on the true text, in one pass and in steps; and on its own predictions.

    Says nothing of models that do not write. Raises NotChecked for a decoder that cannot be fed its
    own predictions in place of all that it reads.
    """
    if subject.objective.role != "decoder":
        return []
    model = subject.learner().model
    batch = subject.batch(subject.passages(1))
    if not subject.is_plain or not reads_its_targets(batch, subject.objective.visibility(batch)):
        raise NotChecked(
            "needs a decoder that reads the text from left to right, and in which each token is the"
            " target of the position before it"
        )
    tokens, targets = batch.inputs["tokens"][0], batch.targets["tokens"][0]
    with torch.no_grad():
        hidden = model(**whole(tokens))[0]  # (T, D)
        once = F.cross_entropy(model.heads["tokens"](hidden), targets, reduction="none")
    forced, _ = in_steps(model, tokens, targets, own=False)
    free, read = in_steps(model, tokens, targets, own=True)
    differences = (free - once).abs()
    same, moved = gap(once, forced, nats(once)), float(differences.max())
    allowed = tolerance(additions(model, batch))
    changed = int((read != tokens).nonzero()[0]) if bool((read != tokens).any()) else None
    passed = same <= allowed and moved > APART
    return Proof(
        name="teacher forcing",
        passed=passed,
        compared=f"one pass with {len(tokens)} steps that read the true text, and with as many that"
        " read their own predictions: each token's loss",
        numbers={
            "one pass": shown(once),
            "steps on the true text": shown(forced),
            "steps on its own predictions": shown(free),
            "largest difference on the true text": same,
            "largest difference on its own predictions": moved,
            "tolerance on the true text": allowed,
            "first position that reads a prediction other than the text": changed,
        },
        why="On the true text all inputs are known before the pass begins; fed its own"
        " predictions, position t waits for the output of t-1, and no single pass gives its loss.",
        not_covered="What a model learns when it is trained on its own predictions.",
        message=""
        if passed
        else f"on the true text the losses differ by {same:.1e}, on its own predictions by"
        f" {moved:.1e}",
        worst=same,
        tolerance=allowed,
    )


def shown(losses: torch.Tensor) -> str:
    return " ".join(f"{loss:.3f}" for loss in losses[:SHOWN].tolist()) + " …"
