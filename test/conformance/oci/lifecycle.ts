/** runtime.md: state, operations, errors; config.md: hooks. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, readlinkSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { type Case, type Container, groupDirectories, groupParent, type Json, type Lab, until } from "./harness.ts";

/** A container whose program waits to be ended. */
function sleeper(lab: Lab, change: (config: Json) => void = () => {}): Container {
  return lab.container((config) => {
    config.process.args = ["/bin/sh", "-c", "trap 'exit 3' TERM; while :; do sleep 1 & wait; done"];
    change(config);
  });
}

function assertRefused(done: { code: number; stderr: string }, what: string): void {
  assert.notEqual(done.code, 0, `${what} must fail`);
}

/** A hook that appends a line to a file of the host. */
function noting(file: string, word: string, extra = ""): Json {
  return { path: "/bin/sh", args: ["sh", "-c", `${extra} echo ${word} >> ${file}`], env: ["PATH=/bin:/usr/bin"] };
}

const lines = (path: string): string[] =>
  existsSync(path)
    ? readFileSync(path, "utf8")
        .split("\n")
        .filter((line) => line !== "")
    : [];

export const lifecycle: readonly Case[] = [
  {
    clause: "runtime.md Query State",
    name: "state without an id is an error",
    run: async (lab) => assertRefused(await lab.call(["state"]), "state"),
  },
  {
    clause: "runtime.md Query State",
    name: "state of a container that does not exist is an error",
    run: async (lab) => assertRefused(await lab.call(["state", "nobody"]), "state"),
  },
  {
    clause: "runtime.md State",
    name: "state of a created container has version, id, status, pid and the absolute bundle",
    run: async (lab) => {
      const container = await sleeper(lab).made();
      const state = await container.state();
      assert.match(state.ociVersion, /^1\.\d+\.\d+/);
      assert.equal(state.id, container.id);
      assert.equal(state.status, "created");
      assert.equal(state.bundle, realpathSync(container.bundle));
      assert.ok(existsSync(`/proc/${state.pid}`), "pid is a process of the runtime's namespace");
    },
  },
  {
    clause: "runtime.md State",
    name: "state carries the annotations",
    run: async (lab) => {
      const container = await sleeper(lab, (config) => (config.annotations = { "org.example.key": "value" })).made();
      assert.equal((await container.state()).annotations["org.example.key"], "value");
    },
  },
  {
    clause: "runtime.md State",
    name: "status is running after start and stopped after the end",
    run: async (lab) => {
      const container = await sleeper(lab).started();
      assert.equal((await container.state()).status, "running");
      await container.verb("kill", "KILL");
      await container.becomes("stopped");
    },
  },
  {
    clause: "runtime.md Create",
    name: "create without an id is an error",
    run: async (lab) => {
      const container = lab.container();
      assertRefused(await lab.call(["create", "--bundle", container.bundle]), "create");
    },
  },
  {
    clause: "runtime.md Create",
    name: "create without a bundle is an error",
    run: async (lab) => assertRefused(await lab.call(["create", "--bundle", "/no/such/bundle", "x1"]), "create"),
  },
  {
    clause: "runtime.md Create",
    name: "an id that is taken is an error and leaves the first container alone",
    run: async (lab) => {
      const first = await sleeper(lab).made();
      const pid = (await first.state()).pid;
      const second = lab.container(() => {}, first.id);
      assertRefused(await lab.call(["create", "--bundle", second.bundle, first.id]), "create");
      const state = await first.state();
      assert.equal(state.status, "created");
      assert.equal(state.pid, pid);
    },
  },
  {
    clause: "runtime.md Create",
    name: "an id that is not valid is an error and no container comes of it",
    run: async (lab) => {
      for (const id of ["../up", "a/b", "", "a b", "a\nb", ".."]) {
        const container = lab.container();
        const created = await lab.call(["create", "--bundle", container.bundle, id]);
        // A peer that takes the id has a container now, of which the lab does not know.
        if (created.code === 0) await lab.call(["delete", "--force", id]);
        assertRefused(created, `create "${id}"`);
      }
    },
  },
  {
    clause: "runtime.md Create",
    name: "the program does not run before start",
    run: async (lab) => {
      const container = await lab
        .container((config) => (config.process.args = ["/bin/sh", "-c", "echo ran > /ran"]))
        .made();
      assert.equal(existsSync(container.path("ran")), false);
      await container.verb("start");
      await until(() => existsSync(container.path("ran")), "the program has run");
    },
  },
  {
    clause: "runtime.md Create",
    name: "changes of config.json after create have no effect",
    run: async (lab) => {
      const container = await lab
        .container((config) => (config.process.args = ["/bin/sh", "-c", "echo first > /out"]))
        .made();
      const changed = { ...container.config };
      changed.process = { ...changed.process, args: ["/bin/sh", "-c", "echo second > /out"] };
      writeFileSync(join(container.bundle, "config.json"), JSON.stringify(changed));
      await container.verb("start");
      await until(() => lines(container.path("out")).length === 1, "the program has run");
      assert.deepEqual(lines(container.path("out")), ["first"]);
    },
  },
  {
    clause: "runtime.md Create",
    name: "create without process succeeds",
    run: async (lab) => {
      const container = lab.container((config) => delete config.process);
      const done = await container.create();
      assert.equal(done.code, 0, done.stderr);
    },
  },
  {
    clause: "runtime.md Start",
    name: "start without process is an error",
    run: async (lab) => {
      const container = lab.container((config) => delete config.process);
      await container.create();
      assertRefused(await container.verb("start"), "start");
    },
  },
  {
    clause: "runtime.md Errors",
    name: "a failed create leaves neither state nor cgroup nor process",
    run: async (lab) => {
      const container = lab.container((config) =>
        config.mounts.push({ destination: "/mnt", type: "nosuchfs", source: "none" }),
      );
      assertRefused(await container.create(), "create");
      assertRefused(await container.verb("state"), "state");
      for (const directory of groupDirectories(`${groupParent}/${container.id}`))
        assert.equal(existsSync(directory), false, directory);
      const mounts = readFileSync("/proc/self/mounts", "utf8");
      assert.equal(mounts.includes(container.bundle), false, "a mount remains");
    },
  },
  {
    clause: "runtime.md Start",
    name: "start without an id is an error",
    run: async (lab) => assertRefused(await lab.call(["start"]), "start"),
  },
  {
    clause: "runtime.md Start",
    name: "start of a container that does not exist is an error",
    run: async (lab) => assertRefused(await lab.call(["start", "nobody"]), "start"),
  },
  {
    clause: "runtime.md Start",
    name: "start of a running container is an error without effect",
    run: async (lab) => {
      const container = await sleeper(lab).started();
      const before = await container.state();
      assertRefused(await container.verb("start"), "second start");
      const after = await container.state();
      assert.equal(after.status, "running");
      assert.equal(after.pid, before.pid);
    },
  },
  {
    clause: "runtime.md Start",
    name: "start of a stopped container is an error without effect",
    run: async (lab) => {
      const container = await lab.container().started();
      await container.becomes("stopped");
      assertRefused(await container.verb("start"), "start");
      assert.equal((await container.state()).status, "stopped");
    },
  },
  {
    clause: "runtime.md Start",
    name: "a program that cannot be run is an error of create or start",
    run: async (lab) => {
      const container = lab.container((config) => (config.process.args = ["/no/such/program"]));
      const created = await container.create();
      if (created.code === 0) assertRefused(await container.verb("start"), "start");
    },
  },
  {
    clause: "runtime.md Lifecycle",
    name: "a container whose start failed is stopped as soon as start says so, and can be deleted",
    run: async (lab) => {
      // Often enough that a first process which is still on its way out is met.
      for (let i = 0; i < 25; i++) {
        const container = lab.container((config) => (config.process.args = ["/no/such/program"]));
        if ((await container.create()).code !== 0) continue; // it was found out already, and nothing is left
        assertRefused(await container.verb("start"), "start");
        const deleted = await container.verb("delete");
        assert.equal(deleted.code, 0, deleted.stderr);
      }
    },
  },
  {
    clause: "runtime.md Kill",
    name: "kill without an id is an error",
    run: async (lab) => assertRefused(await lab.call(["kill"]), "kill"),
  },
  {
    clause: "runtime.md Kill",
    name: "kill of a container that does not exist is an error",
    run: async (lab) => assertRefused(await lab.call(["kill", "nobody", "KILL"]), "kill"),
  },
  {
    clause: "runtime.md Kill",
    name: "kill of a created container ends it",
    run: async (lab) => {
      const container = await sleeper(lab).made();
      assert.equal((await container.verb("kill", "KILL")).code, 0);
      await container.becomes("stopped");
    },
  },
  {
    clause: "runtime.md Kill",
    name: "kill sends the signal that was asked for",
    run: async (lab) => {
      const container = await lab
        .container(
          (config) =>
            (config.process.args = [
              "/bin/sh",
              "-c",
              "trap 'echo usr1 > /got; exit' USR1; echo up > /up; while :; do sleep 1 & wait; done",
            ]),
        )
        .started();
      await until(() => existsSync(container.path("up")), "the trap is set");
      assert.equal((await container.verb("kill", "USR1")).code, 0);
      await until(() => lines(container.path("got")).length === 1, "the signal has arrived");
    },
  },
  {
    clause: "runtime.md Kill",
    name: "kill of a stopped container is an error",
    run: async (lab) => {
      const container = await lab.container().started();
      await container.becomes("stopped");
      assertRefused(await container.verb("kill", "TERM"), "kill");
    },
  },
  {
    clause: "runtime.md Delete",
    name: "delete without an id is an error",
    run: async (lab) => assertRefused(await lab.call(["delete"]), "delete"),
  },
  {
    clause: "runtime.md Delete",
    name: "delete of a container that does not exist is an error",
    run: async (lab) => assertRefused(await lab.call(["delete", "nobody"]), "delete"),
  },
  {
    clause: "runtime.md Delete",
    name: "delete of a created container is an error without effect",
    run: async (lab) => {
      const container = await sleeper(lab).made();
      assertRefused(await container.verb("delete"), "delete");
      assert.equal((await container.state()).status, "created");
    },
  },
  {
    clause: "runtime.md Delete",
    name: "delete of a running container is an error without effect",
    run: async (lab) => {
      const container = await sleeper(lab).started();
      assertRefused(await container.verb("delete"), "delete");
      assert.equal((await container.state()).status, "running");
    },
  },
  {
    clause: "runtime.md Delete",
    name: "delete removes what create made, and the id can be used again",
    run: async (lab) => {
      const container = await lab.container().started();
      await container.becomes("stopped");
      assert.equal((await container.verb("delete")).code, 0);
      assertRefused(await container.verb("state"), "state");
      for (const directory of groupDirectories(`${groupParent}/${container.id}`))
        assert.equal(existsSync(directory), false, directory);
      const again = await container.create();
      assert.equal(again.code, 0, again.stderr);
    },
  },
  {
    clause: "runtime.md Delete",
    name: "delete leaves alone what it did not make",
    run: async (lab) => {
      const parent = `${groupParent}/kept`;
      for (const directory of groupDirectories(parent)) mkdirSync(directory, { recursive: true });
      const container = lab.container((config) => (config.linux.cgroupsPath = `/${parent}/inner`));
      await container.started();
      await container.becomes("stopped");
      await container.verb("delete");
      for (const directory of groupDirectories(parent)) assert.ok(existsSync(directory), directory);
    },
  },
  {
    clause: "config.md Hooks",
    name: "all hooks run in the order of the life cycle",
    run: async (lab) => {
      const folder = lab.directory("hooks");
      const file = join(folder, "order");
      const container = lab.container((config) => {
        config.mounts.push({ destination: folder, type: "none", source: folder, options: ["bind"] });
        config.process.args = ["/bin/sh", "-c", `echo program >> ${file}; sleep 100`];
        config.hooks = {
          prestart: [noting(file, "prestart")],
          createRuntime: [noting(file, "createRuntime")],
          createContainer: [noting(file, "createContainer")],
          startContainer: [noting(file, "startContainer")],
          poststart: [noting(file, "poststart")],
          poststop: [noting(file, "poststop")],
        };
      });
      await container.made();
      assert.deepEqual(lines(file), ["prestart", "createRuntime", "createContainer"]);
      await container.verb("start");
      await until(() => lines(file).length >= 6, "program and poststart");
      assert.equal(lines(file)[3], "startContainer");
      assert.deepEqual(lines(file).slice(4).sort(), ["poststart", "program"]);
      await container.verb("kill", "KILL");
      await container.becomes("stopped");
      await container.verb("delete");
      assert.equal(lines(file)[6], "poststop");
    },
  },
  {
    clause: "config.md Hooks",
    name: "hooks of one kind run in the listed order",
    run: async (lab) => {
      const file = join(lab.directory("hooks"), "order");
      const container = lab.container(
        (config) =>
          (config.hooks = { createRuntime: [noting(file, "one"), noting(file, "two"), noting(file, "three")] }),
      );
      await container.made();
      assert.deepEqual(lines(file), ["one", "two", "three"]);
    },
  },
  {
    clause: "config.md Hooks",
    name: "poststart hooks have run when start returns",
    run: async (lab) => {
      const file = join(lab.directory("hooks"), "order");
      const container = lab.container(
        (config) => (config.hooks = { poststart: [noting(file, "poststart", "sleep 0.05;")] }),
      );
      await container.started();
      assert.deepEqual(lines(file), ["poststart"]);
    },
  },
  {
    clause: "config.md Hooks",
    name: "the state is on the standard input of a hook, with status and pid",
    run: async (lab) => {
      const folder = lab.directory("hooks");
      const save = (name: string): Json => ({
        path: "/bin/sh",
        args: ["sh", "-c", `cat > ${folder}/${name}`],
        env: ["PATH=/bin:/usr/bin"],
      });
      const container = lab.container((config) => {
        config.annotations = { a: "b" };
        config.hooks = {
          createRuntime: [save("createRuntime")],
          poststart: [save("poststart")],
          poststop: [save("poststop")],
        };
        config.process.args = ["/bin/sleep", "100"];
      });
      await container.started();
      const creating = JSON.parse(readFileSync(join(folder, "createRuntime"), "utf8"));
      assert.equal(creating.id, container.id);
      assert.equal(creating.status, "creating");
      assert.equal(creating.bundle, realpathSync(container.bundle));
      assert.deepEqual(creating.annotations, { a: "b" });
      const pid = (await container.state()).pid;
      assert.equal(creating.pid, pid);
      assert.equal(JSON.parse(readFileSync(join(folder, "poststart"), "utf8")).status, "running");
      await container.verb("kill", "KILL");
      await container.becomes("stopped");
      await container.verb("delete");
      assert.equal(JSON.parse(readFileSync(join(folder, "poststop"), "utf8")).status, "stopped");
    },
  },
  ...(["prestart", "createRuntime", "createContainer"] as const).map((kind): Case => ({
    clause: "runtime.md Lifecycle",
    name: `a failing ${kind} hook is an error that destroys the container and runs poststop`,
    run: async (lab) => {
      const file = join(lab.directory("hooks"), "order");
      const container = lab.container((config) => {
        config.hooks = { [kind]: [{ path: "/bin/false" }], poststop: [noting(file, "poststop")] };
      });
      assertRefused(await container.create(), "create");
      assertRefused(await container.verb("state"), "state");
      assert.deepEqual(lines(file), ["poststop"]);
    },
  })),
  {
    clause: "runtime.md Lifecycle",
    name: "a failing startContainer hook is an error and the program does not run",
    run: async (lab) => {
      const container = lab.container((config) => {
        config.hooks = { startContainer: [{ path: "/bin/false" }] };
        config.process.args = ["/bin/sh", "-c", "echo ran > /ran; sleep 100"];
      });
      await container.made();
      assertRefused(await container.verb("start"), "start");
      assert.equal(existsSync(container.path("ran")), false);
      await container.becomes("stopped");
    },
  },
  {
    clause: "runtime.md Lifecycle",
    name: "a failing poststart hook is an error that stops the container",
    run: async (lab) => {
      const container = sleeper(lab, (config) => (config.hooks = { poststart: [{ path: "/bin/false" }] }));
      await container.made();
      assertRefused(await container.verb("start"), "start");
      await until(async () => {
        const state = await container.verb("state");
        return state.code !== 0 || JSON.parse(state.stdout).status === "stopped";
      }, "the container is stopped or gone");
    },
  },
  {
    clause: "runtime.md Lifecycle",
    name: "a failing poststop hook is only a warning, and the later ones run",
    run: async (lab) => {
      const file = join(lab.directory("hooks"), "order");
      const container = lab.container(
        (config) => (config.hooks = { poststop: [{ path: "/bin/false" }, noting(file, "second")] }),
      );
      await container.started();
      await container.becomes("stopped");
      const done = await container.verb("delete");
      assert.equal(done.code, 0, done.stderr);
      assert.deepEqual(lines(file), ["second"]);
    },
  },
  {
    clause: "config.md Hooks",
    name: "a hook gets its args and env and nothing else",
    run: async (lab) => {
      const file = join(lab.directory("hooks"), "out");
      const container = lab.container(
        (config) =>
          (config.hooks = {
            createRuntime: [
              {
                path: "/bin/sh",
                args: ["myname", "-c", `echo "$0|$1|$WORD|$HOME" > ${file}`, "zero", "one"],
                env: ["WORD=w"],
              },
            ],
          }),
      );
      await container.made();
      assert.deepEqual(lines(file), ["zero|one|w|"]);
    },
  },
  {
    clause: "config.md Hooks",
    name: "a hook that outlives its timeout fails",
    run: async (lab) => {
      const container = lab.container(
        (config) =>
          (config.hooks = {
            createRuntime: [{ path: "/bin/sh", args: ["sh", "-c", "exec sleep 600"], env: ["PATH=/bin"], timeout: 1 }],
          }),
      );
      const created = await container.create();
      assertRefused(created, "create");
      // What is not done in its time is ended so.
      assert.notEqual(created.code, 137, "the hook was waited for");
    },
  },
  {
    clause: "config.md Hooks",
    name: "a timeout of zero or less is an error",
    run: async (lab) => {
      const container = lab.container(
        (config) => (config.hooks = { createRuntime: [{ path: "/bin/true", timeout: 0 }] }),
      );
      assertRefused(await container.create(), "create");
    },
  },
  {
    clause: "config.md Hooks",
    name: "a hook that does not read its input is no error",
    run: async (lab) => {
      const container = lab.container((config) => {
        config.annotations = { big: "x".repeat(300_000) };
        config.hooks = { createRuntime: [{ path: "/bin/true" }], poststart: [{ path: "/bin/true" }] };
      });
      const created = await container.create();
      assert.equal(created.code, 0, created.stderr);
      const started = await container.verb("start");
      assert.equal(started.code, 0, started.stderr);
    },
  },
  {
    clause: "config.md Hooks",
    name: "a hook path that is relative is an error",
    run: async (lab) => {
      const container = lab.container((config) => (config.hooks = { createRuntime: [{ path: "true" }] }));
      assertRefused(await container.create(), "create");
    },
  },
  {
    clause: "config.md Hooks",
    name: "createRuntime runs in the runtime's namespaces, createContainer and startContainer in the container's",
    run: async (lab) => {
      const folder = lab.directory("hooks");
      const note = (name: string): Json => ({
        path: "/bin/sh",
        args: ["sh", "-c", `for n in uts mnt; do readlink /proc/self/ns/$n; done > ${folder}/${name}`],
        env: ["PATH=/bin:/usr/bin"],
      });
      const container = lab.container((config) => {
        config.mounts.push({ destination: folder, type: "none", source: folder, options: ["bind"] });
        config.process.args = ["/bin/sleep", "100"];
        config.hooks = {
          createRuntime: [note("createRuntime")],
          createContainer: [note("createContainer")],
          startContainer: [note("startContainer")],
        };
      });
      await container.started();
      const own = namespaces("self");
      const inside = namespaces(String((await container.state()).pid));
      assert.deepEqual(lines(join(folder, "createRuntime")), own);
      assert.deepEqual(lines(join(folder, "createContainer")), inside);
      assert.deepEqual(lines(join(folder, "startContainer")), inside);
    },
  },
];

function namespaces(pid: string): string[] {
  return [readlinkSync(`/proc/${pid}/ns/uts`), readlinkSync(`/proc/${pid}/ns/mnt`)];
}
