/** Our own part of the API, described. */
import { readFileSync } from "node:fs";

/** Read when it is first asked for; a bundle has the file beside it. */
let text: string | undefined;

export const descriptionOfSkep = (): string =>
  (text ??= readFileSync(new URL("./skep-v1.yaml", import.meta.url), "utf8"));
