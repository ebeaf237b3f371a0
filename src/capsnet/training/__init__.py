"""Training: one loop for every model, data set, device and number of processes.

config.py       training options
holding_out.py  training images that calibrate probabilities
fit.py          `capsnet.train`
estimator.py    CapsNetClassifier, for scikit-learn; early_stopping.py, its early stopping
batches.py      the order and the random numbers of every step
step.py         one optimizer step; gradients.py averages the gradients of several processes
average.py      the moving average of the weights
loop.py         the training loop
run.py          the folder of a run; listing.py, all runs below a folder
progress.py     a progress bar for notebooks and terminals
hub.py          a run on the Hugging Face Hub, with a model card
checkpoint.py   checkpoints, to resume a run
nonfinite.py    policy for steps with a NaN or infinite loss or gradient
determinism.py  bitwise reproducible training

May import `inference` and everything below it. Begin with `loop.py`.
"""
