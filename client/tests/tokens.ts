/** Return a token of a subject. The simulated servers do not check its signature. */
export function tokenOf(sub: unknown): string {
  const claims = Buffer.from(JSON.stringify({ sub, name: "Zo\u00eb >?" }));
  return `e30.${claims.toString("base64url")}.sig`;
}
