/** The version of the program: package.json's, checked by a test. A bundle has no package.json beside it. */
export const cliVersion = "0.1.0";
