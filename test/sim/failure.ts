/** A promise that the simulated cluster broke. `check` is the number in the scenario catalogue, or a word. */
export class SimFailure extends Error {
  readonly check: string;

  constructor(check: string, what: string, facts: Readonly<Record<string, unknown>> = {}) {
    super(`${check}: ${what} ${JSON.stringify(facts)}`);
    this.name = new.target.name;
    this.check = check;
  }
}
