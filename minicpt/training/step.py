"""What one training step did, as the trainer hands it over; it shows itself as a table."""

from dataclasses import dataclass

from minicpt.common.shown import LOSSES, Shown, Table, loss_rows
from minicpt.loss import Loss


@dataclass(frozen=True, repr=False)
class Step(Shown):
    """What one step did.

    losses  by head: the objective's
    terms   by name: what each term or remedy added to the loss
    tokens  the real positions that the model read
    """

    number: int
    losses: dict[str, Loss]
    terms: dict[str, float]
    tokens: int
    learning_rate: float

    def shown(self) -> Table:
        terms = [[f"{name} (term)", f"{value:.4f}", ""] for name, value in self.terms.items()]
        remark = f"{self.tokens:,} positions read, learning rate {self.learning_rate:.3g}"
        return Table(f"step {self.number}", LOSSES, loss_rows(self.losses) + terms, [remark])
