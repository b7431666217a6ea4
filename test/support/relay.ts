/**
 * A TCP relay in front of one address, for tests of networks that misbehave: it can refuse, break, stop forwarding in one
 * direction without a word (a half-open connection), or forward slowly. Loopback only.
 */
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";

interface Pair {
  readonly client: Socket;
  readonly upstream: Socket;
  paused: boolean;
}

type Direction = "toServer" | "toClient";

export class Relay implements AsyncDisposable {
  readonly #server: Server;
  readonly #target: string;
  readonly #pairs = new Set<Pair>();
  readonly #silent = new Set<Direction>();
  #refusing = false;
  #paused = false;
  /** Connections accepted so far. */
  accepted = 0;
  bytesToServer = 0;

  private constructor(target: string) {
    this.#target = target;
    this.#server = createServer({ noDelay: true }, (client) => this.#accept(client));
  }

  static async open(target: string): Promise<Relay> {
    const relay = new Relay(target);
    relay.#server.listen(0, "127.0.0.1");
    await once(relay.#server, "listening");
    return relay;
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get connections(): number {
    return this.#pairs.size;
  }

  /** Ends every connection; new ones are accepted. */
  break(): void {
    for (const { client, upstream } of this.#pairs) {
      client.resetAndDestroy();
      upstream.resetAndDestroy();
    }
  }

  /** Ends every connection and accepts no new one. */
  refuse(): void {
    this.#refusing = true;
    this.break();
  }

  /** Bytes of this direction disappear, as behind a firewall that drops packets; connections stay. */
  silence(direction: Direction): void {
    this.#silent.add(direction);
  }

  /** Reads nothing from clients any more, so that their writes pile up. */
  pause(): void {
    this.#paused = true;
    for (const { client } of this.#pairs) client.pause();
  }

  /** The same for one connection: the `nth` of those that stand now, in the order in which they were accepted. */
  pauseConnection(nth: number): void {
    const pair = [...this.#pairs][nth];
    if (pair === undefined) throw new Error(`there is no connection ${nth}`);
    pair.paused = true;
    pair.client.pause();
  }

  heal(): void {
    this.#refusing = false;
    this.#silent.clear();
    this.#paused = false;
    for (const pair of this.#pairs) {
      pair.paused = false;
      pair.client.resume();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.refuse();
    this.#server.close();
    await once(this.#server, "close");
  }

  #accept(client: Socket): void {
    client.on("error", () => {});
    if (this.#refusing) {
      client.resetAndDestroy();
      return;
    }
    this.accepted++;
    const [host, port] = this.#target.split(":");
    const upstream = connect({ port: Number(port), host, noDelay: true });
    upstream.on("error", () => {});
    const pair: Pair = { client, upstream, paused: false };
    this.#pairs.add(pair);
    client.on("data", (bytes) => {
      if (this.#silent.has("toServer")) return;
      this.bytesToServer += bytes.length;
      if (!upstream.write(bytes)) {
        client.pause();
        upstream.once("drain", () => {
          if (!this.#paused && !pair.paused) client.resume();
        });
      }
    });
    upstream.on("data", (bytes) => {
      if (!this.#silent.has("toClient")) client.write(bytes);
    });
    const end = (): void => {
      this.#pairs.delete(pair);
      client.destroy();
      upstream.destroy();
    };
    client.on("close", end);
    upstream.on("close", end);
    if (this.#paused) client.pause();
  }
}
