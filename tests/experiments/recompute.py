"""Verdicts from the JSON records alone, with NumPy and SciPy: nothing of capsnet is used.

    python recompute.py RESULTS CLAIMS.json

CLAIMS.json holds one list for each experiment and scale: {"table1 quick": [{"ours": "r3", "against": "r1",
"measure": "test", "better": "lower", "margin": 0.001}, ...]}. Holm's correction is over all claims of a list. Only
claims with two common seeds or more are judged.
"""

import base64
import json
import re
import sys
import zlib
from pathlib import Path

import numpy as np
from scipy import stats


def load_runs(results, experiment, scale, variant):
    """The records of a variant, by seed."""
    name = re.compile(re.escape(f"{variant}-{scale}-s") + r"(\d+)\.json")
    files = [(name.fullmatch(path.name), path) for path in (Path(results) / experiment).iterdir()]
    return {int(match[1]): json.loads(path.read_text("utf-8")) for match, path in files if match}


def wrong_answers(test):
    """0 or 1 for each image."""
    packed = np.frombuffer(zlib.decompress(base64.b64decode(test["wrong_bits"])), np.uint8)
    return np.unpackbits(packed)[: test["n"]].astype(float)


def shown_things(test):
    """What each image shows, or None."""
    groups = test.get("groups")
    if groups is None:
        return None
    raw = zlib.decompress(base64.b64decode(groups["zlib_base64"]))
    return np.frombuffer(raw, np.dtype(groups["dtype"]).newbyteorder("<")).astype(int)


def judge(results, experiment, scale, claims):
    """One dictionary for each claim: difference, p, p_holm, low_90, high_90, verdict."""
    found = [difference(results, experiment, scale, **claim) for claim in claims]
    order = np.argsort([one["p"] for one in found], kind="stable")
    so_far = 0.0
    for rank, place in enumerate(order):
        so_far = max(so_far, min(1.0, found[place]["p"] * (len(found) - rank)))
        found[place]["p_holm"] = so_far
    for claim, one in zip(claims, found, strict=True):
        if one["p_holm"] <= 0.05:
            is_better = one["difference"] < 0 if claim["better"] == "lower" else one["difference"] > 0
            one["verdict"] = "supported" if is_better else "contradicted"
        elif max(-one["low_90"], one["high_90"]) < claim["margin"]:
            one["verdict"] = "equivalent"
        else:
            one["verdict"] = "undecided"
    return found


def difference(results, experiment, scale, ours, against, measure, better, margin):
    """Of the two variants, with its p and its 90 % interval."""
    a, b = (load_runs(results, experiment, scale, variant) for variant in (ours, against))
    seeds = sorted(a.keys() & b.keys())
    assert len(seeds) > 1
    if measure not in a[seeds[0]]["tests"]:
        values = np.array([a[seed]["metrics"][measure] - b[seed]["metrics"][measure] for seed in seeds])
        sources = [(values.std(ddof=1) / np.sqrt(len(seeds)), len(seeds) - 1)]
        return with_intervals(values.mean(), sources, sources)
    tests = [(a[seed]["tests"][measure], b[seed]["tests"][measure]) for seed in seeds]
    change = np.array([wrong_answers(one) - wrong_answers(other) for one, other in tests])
    over_seeds = (stats.sem(change.mean(axis=1)), len(seeds) - 1)
    images = change.mean(axis=0)
    things = shown_things(tests[0][0])
    if things is None:
        over_images = (stats.sem(images), len(images) - 1)
        two_more = np.append(images, [1.0, -1.0])
        wider = (stats.sem(two_more), len(two_more) - 1)
    else:
        names = np.unique(things)
        left = [np.sum(images[things == name] - images.mean()) for name in names]
        error = np.sqrt(np.sum(np.square(left)) * len(names) / (len(names) - 1)) / len(images)
        over_images = wider = (error, len(names) - 1)
    return with_intervals(change.mean(), [over_seeds, over_images], [over_seeds, wider])


def with_intervals(mean, sources, wider):
    """The p at which the joined interval ends at 0, and the 90 % interval."""
    least, most = -690.0, 0.0  # of the logarithm of p, by bisection
    for _ in range(200):
        middle = (least + most) / 2
        if half(sources, np.exp(middle)) > abs(mean):
            least = middle
        else:
            most = middle
    reach = half(wider, 0.1)
    return {"difference": mean, "p": np.exp(most), "low_90": mean - reach, "high_90": mean + reach}


def half(sources, p):
    """Student's intervals of several sources of chance, their halves added up as squares."""
    squares = [(stats.t.isf(p / 2, freedom) * error) ** 2 for error, freedom in sources]
    return np.sqrt(sum(squares))


if __name__ == "__main__":
    for group, of_group in json.loads(Path(sys.argv[2]).read_text("utf-8")).items():
        for claim, judged in zip(of_group, judge(sys.argv[1], *group.split(), of_group), strict=True):
            print(group, claim["ours"], claim["against"], claim["measure"], judged)
