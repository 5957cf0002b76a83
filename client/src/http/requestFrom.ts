import { ConnectionRefused } from "../errors.js";
import { FORBIDDEN } from "./problem.js";

/**
 * Request a path of the server. Browsers hide its answers from pages of origins that it does not
 * accept. Only its answer to a request without a token and cookies is visible to them.
 *
 * @throws ConnectionRefused if the server does not accept the origin of the page.
 */
export async function requestFrom(
  server: URL,
  path: string,
  signal: AbortSignal,
  init: RequestInit,
): Promise<Response> {
  const options: RequestInit = { cache: "no-store", signal };
  try {
    return await fetch(`${server}${path}`, { ...options, ...init });
  } catch (error) {
    const isRefused = await fetch(`${server}events`, { ...options, credentials: "omit" }).then(
      ({ status }) => status === 403,
      () => false,
    );
    throw isRefused ? new ConnectionRefused("forbidden", FORBIDDEN) : error;
  }
}
