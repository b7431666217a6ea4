/**
 * A task that is nothing but the place of a container in a network: the container is the user's, and goes its own way.
 * Such a task runs from when the node knows its addresses until somebody takes the container out of the network.
 */
import type { skep } from "../../proto/index.ts";
import type { ExitReport, TaskController } from "../executor/index.ts";

export const isAttachment = ({ spec }: Readonly<skep.objects.Task>): boolean => spec?.networkAttachmentSpec != null;

export class AttachmentController implements TaskController {
  update(): Promise<void> {
    return Promise.resolve();
  }

  prepare(): Promise<void> {
    return Promise.resolve();
  }

  start(): Promise<void> {
    return Promise.resolve();
  }

  wait(signal: AbortSignal): Promise<ExitReport> {
    return new Promise((_, reject) => {
      const leave = (): void => reject(signal.reason as Error);
      if (signal.aborted) leave();
      else signal.addEventListener("abort", leave, { once: true });
    });
  }

  shutdown(): Promise<void> {
    return Promise.resolve();
  }

  terminate(): Promise<void> {
    return Promise.resolve();
  }

  remove(): Promise<void> {
    return Promise.resolve();
  }

  containerStatus(): undefined {
    return undefined;
  }

  portStatus(): undefined {
    return undefined;
  }

  networkStatus(): undefined {
    return undefined;
  }

  async *logs(): AsyncIterable<never> {
    // It writes nothing.
  }
}
