"""Serve a model over HTTP with ONNX Runtime; PyTorch is not imported.

    finding.py    a run or a saved model → its ONNX file, exported once in another process
    model.py      an ONNX file → scores
    requests.py   a request's body → images
    batching.py   images of several requests → one call of the model
    metrics.py    counts and times for Prometheus
    protocol.py   connections of slow clients
    app.py        the HTTP application
    worker.py     the processes that answer
    server.py     `capsnet serve`

Imports only from `_support`. Begin with `app.py`.
"""
