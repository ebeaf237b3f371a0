"""General tools that know nothing of capsules. Imports nothing else of capsnet.

errors.py          the exceptions, and how untrusted text is shown in them
files.py           atomic writes, JSON from untrusted files
pictures.py        image files → pixels
guard.py           checks of host, origin, content type, size and time, for servers; sockets.py, how they listen
weights.py         tensors to and from safetensors
validation.py      configurations whose fields are checked
dispatch.py        when a fast path may replace PyTorch's operators
numba_compiler.py  how kernels are compiled; threads.py, how they run on several cores
hub.py             why a request to the Hugging Face Hub failed
notebook.py        small HTML for notebooks
version.py         the version, once
registry.py        names → objects, built-in or from plug-ins
environment.py     versions and machine, for records

Begin with `errors.py`: each message a user sees is raised with it.
"""
