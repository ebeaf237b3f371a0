/** An answer that an engine refuses or cannot give, with a sentence for the visitor. */
export class Refusal extends Error {}
