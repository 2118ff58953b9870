"""The comparison: continued pre-training with each objective and each remedy, from the same base.

    plan.py        settings: texts, budget, sizes
    arms.py        what keeps a continuation near its base, and with which strength
    parts.py       a part is a base, or one continuation of one, with an objective
    choosing.py    which objectives, arms and changes there are, from what was asked
    texts.py       the old, the new and the wrong text: held apart, bounded, tokenised
    run.py         a whole comparison: prepares it, and says what comes of it
    job.py         all parts: checked before the first step, done one after the other
    forecast.py    how many parts, and about how long they take
    tuning.py      the learning rate of each objective, by one rule
    making.py      one part: trained as ``train`` does it
    work.py        the same part: measured
    measure.py     held-out losses by unit of text, before and after
    task.py        the probe's task: which part of a text a passage comes from
    probe.py       the task, learnt from frozen features and by tuning the model
    store.py       the folder that keeps what is done, so that nothing is done twice
    statistics.py  intervals over seeds and text
    summary.py     gained, forgotten, what is within noise, the Pareto front
    matrix.py      the objective changes: continued with (rows), measured by (columns)
    curves.py      each remedy from weak to strong, beside what the literature found
    advice.py      a user's own base: what fits it, and the command that is recommended
    table.py       the same as text: tables, then plain sentences
    plot.py        the same as a picture
"""

from minicpt.comparison.run import Result, compare

__all__ = ["Result", "compare"]
