/** `node --import ./test/sim/mutation-hook.ts --test ...`: plants the bug that SIM_MUTATION names, for scripted tests. */
import { mutations, plantMutation } from "./mutations.ts";

const name = process.env["SIM_MUTATION"];
const mutation = mutations.find((candidate) => candidate.name === name);
if (mutation === undefined) throw new Error(`SIM_MUTATION names no mutation: ${name}`);
plantMutation(mutation);
