"""The comparison: continued pre-training with each objective and each remedy, from the same base.

    plan.py        settings, and the parts: a part is a base, or one continuation of one
    texts.py       the old, the new and the wrong text: bounded, their passages labelled
    run.py         a whole comparison: prepares it, and does what is not done yet
    work.py        one part: trained as ``train`` does it, and measured
    measure.py     held-out losses by unit of text, before and after
    task.py        the probe's task: which part of a text a passage comes from
    probe.py       the task, learnt from frozen features and by tuning the model
    store.py       the folder that keeps what is done, so that nothing is done twice
    statistics.py  intervals over seeds and text
    summary.py     gained, forgotten, what is within noise, the Pareto front
    table.py       the same as text: tables, then plain sentences
    plot.py        the same as a picture
"""

from minicpt.comparison.run import Result, compare

__all__ = ["Result", "compare"]
