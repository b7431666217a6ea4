/** Codecs for the generated messages of proto/. */
import type { Codec } from "./method.ts";
import { MessageUnreadable } from "./errors.ts";

/** What protobufjs generates for a message, as far as a codec needs it. */
interface MessageType<Properties> {
  encode(message: Properties): { finish(): Uint8Array };
  decode(bytes: Uint8Array): Properties;
}

/** @param name  of the message, for the error of a peer that sends something else */
export function messageCodec<Properties>(name: string, type: MessageType<Properties>): Codec<Properties> {
  return {
    encode: (message) => type.encode(message).finish(),
    decode: (bytes) => {
      try {
        return type.decode(bytes);
      } catch (error) {
        throw new MessageUnreadable(name, error);
      }
    },
  };
}
