"""Coverage-guided fuzzing of everything that reads a file from strangers.

targets.py   what is fuzzed, and the inputs that it starts from
driver.py    one target under Atheris, in a process of its own: libFuzzer ends the process
mutating.py  changed seeds without Atheris, for the tests
campaign.py  the part of the torture run: all targets, one after the other
"""
