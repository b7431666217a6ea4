/** The peer: three members of Debian's etcd on loopback with mutual TLS, and what is asked of them. */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, openSync, closeSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import protobuf from "protobufjs/minimal.js";

import { LeanClient } from "./lean-client.ts";

interface Member {
  readonly name: string;
  readonly clientPort: number;
  readonly peerPort: number;
  process: ChildProcess;
}

export class Etcd {
  readonly #folder: string;
  readonly members: Member[] = [];

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async start(folder: string): Promise<Etcd> {
    mkdirSync(folder, { recursive: true });
    const etcd = new Etcd(folder);
    etcd.#makeCertificates();
    const ports = await freePorts(6);
    const names = ["e1", "e2", "e3"];
    const cluster = names.map((name, at) => `${name}=https://127.0.0.1:${ports[at * 2 + 1]}`).join(",");
    for (const [at, name] of names.entries()) {
      const member = { name, clientPort: ports[at * 2]!, peerPort: ports[at * 2 + 1]! };
      etcd.members.push({ ...member, process: etcd.#spawn(member, cluster) });
    }
    await etcd.#untilHealthy();
    return etcd;
  }

  get tls(): { ca: Buffer; cert: Buffer; key: Buffer } {
    const read = (name: string): Buffer => readFileSync(join(this.#folder, name));
    return { ca: read("ca.pem"), cert: read("cert.pem"), key: read("key.pem") };
  }

  /** Which member leads. */
  leader(): Member {
    const status = JSON.parse(this.ctl(["endpoint", "status", "-w", "json", "--cluster"])) as {
      Endpoint: string;
      Status: { leader: number; header: { member_id: number } };
    }[];
    const found = status.find(({ Status }) => Status.leader === Status.header.member_id);
    const member = this.members.find(({ clientPort }) => found?.Endpoint.endsWith(`:${clientPort}`));
    if (member === undefined) throw new Error("etcd has no leader");
    return member;
  }

  client(member: Member): Promise<LeanClient> {
    return LeanClient.open(`https://127.0.0.1:${member.clientPort}`, this.tls);
  }

  /** etcdctl's own figure of committed writes a second (`check perf`). */
  checkPerf(load: string): number {
    let text: string;
    try {
      text = this.ctl(["check", "perf", `--load=${load}`], 120_000);
    } catch (error) {
      // It ends with 1 when it finds the throughput below its own expectation, and prints it all the same.
      const { stdout, stderr } = error as { stdout?: Buffer; stderr?: Buffer };
      text = `${stdout?.toString() ?? ""}${stderr?.toString() ?? ""}`;
    }
    const found = /(\d+) writes\/s/u.exec(text);
    if (found === null) throw new Error(`etcdctl check perf said: ${text.slice(-300)}`);
    return Number(found[1]);
  }

  ctl(args: readonly string[], timeoutMs = 20_000): string {
    const endpoints = this.members.map(({ clientPort }) => `https://127.0.0.1:${clientPort}`).join(",");
    const file = (name: string): string => join(this.#folder, name);
    const flags = [
      "--endpoints",
      endpoints,
      "--cacert",
      file("ca.pem"),
      "--cert",
      file("cert.pem"),
      "--key",
      file("key.pem"),
    ];
    return execFileSync("etcdctl", [...flags, ...args], {
      env: { ...process.env, ETCDCTL_API: "3" },
      timeout: timeoutMs,
      stdio: ["ignore", "pipe", "pipe"],
    }).toString();
  }

  async stop(): Promise<void> {
    await Promise.all(
      this.members.map(async ({ process }) => {
        if (process.exitCode !== null || process.signalCode !== null) return;
        process.kill("SIGKILL");
        await once(process, "exit");
      }),
    );
  }

  #spawn(member: Omit<Member, "process">, cluster: string): ChildProcess {
    const file = (name: string): string => join(this.#folder, name);
    const client = `https://127.0.0.1:${member.clientPort}`;
    const peer = `https://127.0.0.1:${member.peerPort}`;
    const log = openSync(file(`${member.name}.log`), "a");
    const child = spawn(
      "etcd",
      flags({
        name: member.name,
        "data-dir": file(member.name),
        logger: "zap",
        "log-level": "warn",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": cluster,
        "initial-cluster-state": "new",
        "client-cert-auth": "true",
        "trusted-ca-file": file("ca.pem"),
        "cert-file": file("cert.pem"),
        "key-file": file("key.pem"),
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": file("ca.pem"),
        "peer-cert-file": file("cert.pem"),
        "peer-key-file": file("key.pem"),
        "quota-backend-bytes": String(8 * 2 ** 30),
      }),
      { stdio: ["ignore", log, log] },
    );
    closeSync(log);
    return child;
  }

  async #untilHealthy(): Promise<void> {
    // etcd has no event for this; its own tool waits for the answer.
    for (let attempt = 0; ; attempt++) {
      try {
        this.ctl(["endpoint", "health"], 5000);
        return;
      } catch (error) {
        if (attempt >= 30) throw error;
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  }

  /** Keys of the same kind as our own (P-256), and an address, which Go's client wants to find in the certificate. */
  #makeCertificates(): void {
    const openssl = (...args: string[]): void => {
      execFileSync("openssl", args, { cwd: this.#folder, stdio: ["ignore", "ignore", "pipe"] });
    };
    const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    openssl("req", "-x509", ...curve, "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "2", "-subj", "/CN=bench-ca");
    openssl("req", ...curve, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=bench");
    writeFileSync(
      join(this.#folder, "extensions"),
      "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\n",
    );
    const authority = ["-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial"];
    openssl(
      "x509",
      "-req",
      "-in",
      "request.pem",
      ...authority,
      "-out",
      "cert.pem",
      "-days",
      "2",
      "-extfile",
      "extensions",
    );
  }
}

function flags(values: Readonly<Record<string, string>>): string[] {
  return Object.entries(values).map(([name, value]) => `--${name}=${value}`);
}

/** etcdserverpb.KV/Put */
export const etcdPutPath = "/etcdserverpb.KV/Put";

export function etcdPut(key: string, value: Uint8Array): Uint8Array {
  return protobuf.Writer.create().uint32(10).string(key).uint32(18).bytes(value).finish();
}

/** Ports that were free a moment ago: held together, so that they differ. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, "127.0.0.1"));
  await Promise.all(servers.map((server) => once(server, "listening")));
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
