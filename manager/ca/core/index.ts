/** What the authority decides, without waiting, writing or looking at a clock. */
export { WrongTokens } from "./wrong-tokens.ts";
