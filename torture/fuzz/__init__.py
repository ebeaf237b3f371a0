"""Fuzz every reader of untrusted files, guided by coverage.

targets.py   the fuzz targets and their seed inputs
driver.py    run one target under Atheris in its own process, because libFuzzer ends the process
mutating.py  mutate seeds without Atheris, for the tests
campaign.py  the part of the torture run: all targets in turn
"""
