// What the page says about each routing.
/** @import {World} from "./types.ts" */

/** @typedef {{how: string, pose: string}} Words `how`: from votes to couplings and parents; `pose`: what the arrow is */

const GAUSSIAN = "the mean of its votes, weighted by the couplings";

/** @type {Record<string, Words>} */
const WORDS = {
  dynamic: {
    how: "At first its couplings to all classes are equal. Votes that agree add up to a long {s_j}. In the next iteration the couplings grow for the votes that point along {v_j}.",
    pose: "at length 1 it would reach the border",
  },
  "self-attention": {
    how: "Each vote is compared with the sum of all votes for its class. The softmax of these products over the classes gives the couplings {c_ij}, in one pass. A learned prior is added to them before the votes are summed.",
    pose: "at length 1 it would reach the border",
  },
  em: {
    how: "Each class is a Gaussian with a mean and a variance for each number of the pose. An iteration fits the Gaussians to the votes, weighted by the couplings. Then each child chooses again, with more weight for the classes under which its vote is likely. A class is active if its votes lie close together.",
    pose: GAUSSIAN,
  },
  "variational-bayes": {
    how: "Each class is a Gaussian with priors on its weight, mean and variance. An iteration fits them to the votes, weighted by the couplings. Then each child chooses again. The priors keep a class with few votes from shrinking to a point.",
    pose: GAUSSIAN,
  },
  "inverted-attention": {
    how: "At first its couplings to all classes are equal. Later the product of a vote with the class's pose of the iteration before, through a softmax over the classes, gives its coupling. The weighted sum of the votes passes a layer norm, so all poses have about the same length.",
    pose: "it is drawn in the units of the votes, and ends at the border",
  },
};

/** @param {World["info"]} info @returns {Words} */
export function wordsOf({ routing, measure }) {
  return WORDS[routing] ?? {
    how: `The routing “${routing}” decides how much of each vote goes to which class.`,
    pose: measure === "length" ? WORDS.dynamic.pose : "it is drawn in the units of the votes",
  };
}
