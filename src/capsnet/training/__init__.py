"""Training: one loop for every model, data set, device and number of processes.

config.py       how to train, as a value
batches.py      the order and the random numbers of every step
step.py         one optimizer step
loop.py         the training loop
run.py          what a training leaves on disk
checkpoint.py   the resumable state
nonfinite.py    what happens on a NaN or infinite loss or gradient
determinism.py  bitwise reproducible training

May import `inference` and everything below it. Begin with `loop.py`.
"""
