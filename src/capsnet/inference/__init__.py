"""Use a trained model: measure it, classify files, export it.

evaluation.py  test error with its interval
prediction.py  image files → predictions, streaming, in order
confidence.py  calibrated probabilities, and how typical an image is
saved_confidence.py  the same, saved with a run
output.py      predictions → a resumable JSON Lines file
export.py      ONNX and torch.export, with a parity check
serving/       a model over HTTP, without PyTorch: nothing there imports the rest of capsnet but `_support`
quantised.py   ONNX with 8-bit convolutions, and what that changes

May import `models` and everything below it. Begin with `evaluation.py`.
"""
