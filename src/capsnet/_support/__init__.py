"""Tools that every other room uses and that know nothing of capsules. Imports nothing else of capsnet.

errors.py          the exceptions, and how untrusted text is shown in them
files.py           atomic writes, JSON from untrusted files
weights.py         tensors to and from safetensors
fields.py          types of a configuration's fields; limits.py, how large a network may be
dispatch.py        when a fast path may replace PyTorch's operators
numba_compiler.py  how kernels are compiled; threads.py, how they run on several cores
registry.py        names → things, built-in or from plug-ins
environment.py     versions and machine, for records

Begin with `errors.py`: each message a user sees is raised with it.
"""
