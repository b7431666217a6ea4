/** Tells systemd how far the daemon is (sd_notify(3)), when it asks to be told. Node has no datagram sockets of this kind. */
import { spawn } from "node:child_process";

export function notify(state: "READY=1" | "STOPPING=1" | "RELOADING=1"): void {
  if (process.env["NOTIFY_SOCKET"] === undefined) return;
  const child = spawn("systemd-notify", [`--pid=${process.pid}`, state], { stdio: "ignore" });
  // Without the program nobody waits for the word either.
  child.on("error", () => undefined);
}
