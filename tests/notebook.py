"""minicpt in a notebook, a cell behind each "# %%": what stands last in a cell shows itself."""

# ruff: noqa: B018, E402

# %% From a text to its picture, in three lines
import minicpt

picture = minicpt.explain("The cat sat on the mat.")
picture

# %% The same with numbers of one's own
losses = [each["loss"] for each in picture.data["heads"]["tokens"]["targets"]]
sum(losses) / len(losses)

# %% A mistake that people make: right beside wrong, the leak marked, and who catches it
from minicpt.pictures.broken import broken

broken("mask-off-by-one", "The cat sat on the mat.")

# %% Is a model of one's own causal? Each proof is a row
import torch

table = torch.nn.Embedding(50, 50)

def sums(tokens):
    """Each position adds what stands up to it: causal, and no attention."""
    return table(tokens).cumsum(dim=1)


proofs = minicpt.verify(model=sums, lengths=[5], rows=[2], seconds=1)
proofs

# %% It is a list: those that fail
[each.name for each in proofs if each.passed is False]

# %% A short run: each step shows itself
text = [minicpt.explain.__doc__ * 20]
tokenizer = minicpt.Tokenizer.train(text, 300)
from minicpt.data.documents import Document

corpus = minicpt.Corpus.build([Document("help", each) for each in text], tokenizer)
model = minicpt.GPT2(minicpt.GPT2Config(vocabulary=tokenizer.size, width=16, layers=1, num_heads=2))
objective = minicpt.CausalLM(tokenizer)
trainer = minicpt.Trainer(model, objective, corpus, minicpt.Training(batch_size=4), steps=3)
steps = list(trainer.run())
steps[-1]

# %% And what it is worth
minicpt.evaluate(model, objective, corpus, passages=8)
