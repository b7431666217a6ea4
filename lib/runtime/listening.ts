/** Servers that listen, and go on listening. */
import type { ListenOptions, Server } from "node:net";

/**
 * Begins to listen. What fails from then on is not the server's end: accept(2) passes on what was wrong with a connection
 * before anybody had it (ENETDOWN, EPROTO, a firewall's EPERM) and that memory is short; the next one may do. Node ends the
 * process for an error that nobody listens to.
 * @param failed  hears of those
 * @throws        why it cannot listen
 */
export function listening(server: Server, where: ListenOptions, failed: (error: Error) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(where, () => {
      server.off("error", reject);
      server.on("error", failed);
      resolve();
    });
  });
}
