/**
 * Placement constraints: Swarm's `==` and `!=` on exact, case-insensitive text, and beyond it sets (`in`, `not in`),
 * numbers (`<`, `<=`, `>`, `>=`), patterns (`=~`, `!~`, `*` and `?` only) and presence (`exists KEY`, `not exists KEY`).
 * Here because they belong to the shape of a service's spec: control checks them, the scheduler and the orchestrator ask
 * whether a node satisfies them. Design: docs/design/scheduler.md.
 */
import { ClusterError } from "../lib/pure/errors.ts";
import { skep } from "./gen/skep.js";
import { addressInRange, isAddressOrRange } from "./address.ts";

export type Operator = "==" | "!=" | "in" | "not in" | "<" | "<=" | ">" | ">=" | "=~" | "!~" | "exists" | "not exists";

export interface Constraint {
  /** As the user wrote it, for explanations. */
  readonly text: string;
  readonly key: string;
  readonly operator: Operator;
  /** Lower case; one value but for `in` and `not in`. */
  readonly values: readonly string[];
}

/** Of a node, what constraints can name. */
export interface NodeTraits {
  readonly id: string;
  readonly hostname: string;
  readonly addr: string;
  readonly role: "worker" | "manager";
  readonly os: string;
  readonly architecture: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly engineLabels: ReadonlyMap<string, string>;
}

export class ConstraintInvalid extends ClusterError {
  readonly code = "CONSTRAINT_INVALID";
  readonly found: string;
  constructor(text: string, found: string) {
    super(`Cannot read constraint "${text.slice(0, 200)}": ${found}`, {
      fix: 'Write KEY==VALUE, KEY!=VALUE, KEY in (A,B), KEY<NUMBER, KEY=~PATTERN or exists KEY, for example "node.labels.disk==ssd"',
    });
    this.found = found;
  }
}

const keyPattern =
  /^(?:node\.(?:id|hostname|ip|role|platform\.os|platform\.arch)|(?:node|engine)\.labels\.[A-Za-z0-9._/-]+)$/;
const valuePattern = /^[A-Za-z0-9:_\-.*?()+[\]\\^$|/ ]+$/;
const textMax = 1024;
const valuesMax = 256;

/** @throws ConstraintInvalid */
export function parseConstraint(text: string): Constraint {
  if (text.length > textMax) throw new ConstraintInvalid(text, `it has more than ${textMax} characters`);
  const trimmed = text.trim();
  const presence = /^(not\s+)?exists\s+(\S+)$/i.exec(trimmed);
  if (presence !== null) {
    const key = checkedKey(text, presence[2] ?? "");
    return { text: trimmed, key, operator: presence[1] === undefined ? "exists" : "not exists", values: [] };
  }
  const set = /^(\S+)\s+(not\s+)?in\s*\(([^()]*)\)$/i.exec(trimmed);
  if (set !== null) {
    const values = (set[3] ?? "").split(",").map((value) => value.trim().toLowerCase());
    if (values.length > valuesMax) throw new ConstraintInvalid(text, `it has more than ${valuesMax} values`);
    if (values.some((value) => value === "")) throw new ConstraintInvalid(text, "a value in the set is empty");
    return {
      text: trimmed,
      key: checkedKey(text, set[1] ?? ""),
      operator: set[2] === undefined ? "in" : "not in",
      values,
    };
  }
  const parts = /^([^=!<>~\s]+)\s*(==|!=|=~|!~|<=|>=|<|>)\s*(.*)$/.exec(trimmed);
  // Reference wording: clients show it as it is.
  if (parts === null) throw new ConstraintInvalid(text, "constraint expected one operator from ==, !=");
  const [, key = "", operator = "", value = ""] = parts;
  if (value === "") throw new ConstraintInvalid(text, "the value is missing");
  if (!valuePattern.test(value)) throw new ConstraintInvalid(text, `value '${value}' is invalid`);
  const known = checkedKey(text, key);
  if (["<", "<=", ">", ">="].includes(operator) && !isNumber(value))
    throw new ConstraintInvalid(text, `'${value}' is not a number`);
  if (known === "node.ip" && (operator === "==" || operator === "!=") && !isAddressOrRange(value)) {
    throw new ConstraintInvalid(text, `'${value}' is neither an address nor a range of addresses`);
  }
  return { text: trimmed, key: known, operator: operator as Operator, values: [value.toLowerCase()] };
}

function checkedKey(text: string, key: string): string {
  // Keys of labels keep their case; the fixed part does not care for it.
  const lower = key.toLowerCase();
  const normal = /^(?:node|engine)\.labels\./.test(lower)
    ? lower.slice(0, lower.indexOf(".labels.") + 8) + key.slice(lower.indexOf(".labels.") + 8)
    : lower;
  if (!keyPattern.test(normal)) throw new ConstraintInvalid(text, `key '${key}' is invalid`);
  return normal;
}

/** The node's value of a key, or undefined when it has none. */
export function valueOf(node: NodeTraits, key: string): string | undefined {
  switch (key) {
    case "node.id":
      return node.id;
    case "node.hostname":
      return node.hostname;
    case "node.ip":
      return node.addr;
    case "node.role":
      return node.role;
    case "node.platform.os":
      return node.os;
    case "node.platform.arch":
      return node.architecture;
    default:
      return key.startsWith("node.labels.")
        ? node.labels.get(key.slice("node.labels.".length))
        : node.engineLabels.get(key.slice("engine.labels.".length));
  }
}

/** A missing label is the empty text to `==` and `!=`, as in Swarm. */
export function satisfies(node: NodeTraits, constraint: Constraint): boolean {
  const found = valueOf(node, constraint.key);
  const text = (found ?? "").toLowerCase();
  const [first = ""] = constraint.values;
  const equals = (value: string): boolean =>
    constraint.key === "node.ip"
      ? addressInRange(text, value)
      : constraint.key === "node.platform.arch"
        ? sameArchitecture(text, value)
        : text === value;
  switch (constraint.operator) {
    case "==":
      return equals(first);
    case "!=":
      return !equals(first);
    case "in":
      return constraint.values.some(equals);
    case "not in":
      return !constraint.values.some(equals);
    case "=~":
      return matchesPattern(text, first);
    case "!~":
      return !matchesPattern(text, first);
    case "exists":
      return found !== undefined;
    case "not exists":
      return found === undefined;
    case "<":
      return isNumber(text) && Number(text) < Number(first);
    case "<=":
      return isNumber(text) && Number(text) <= Number(first);
    case ">":
      return isNumber(text) && Number(text) > Number(first);
    case ">=":
      return isNumber(text) && Number(text) >= Number(first);
  }
}

/** The kernel's and Go's names for one architecture are one name. */
export function sameArchitecture(left: string, right: string): boolean {
  return normalArchitecture(left) === normalArchitecture(right);
}

function normalArchitecture(name: string): string {
  const lower = name.toLowerCase();
  if (lower === "x86_64" || lower === "x86-64") return "amd64";
  if (lower === "aarch64") return "arm64";
  return /^armv[67]/.test(lower) ? "arm" : lower;
}

function isNumber(text: string): boolean {
  return /^[+-]?\d{1,15}(?:\.\d{1,15})?$/.test(text);
}

/** `*` any text, `?` one character: linear in the text for each star, so that no pattern can stall a manager. */
function matchesPattern(text: string, pattern: string): boolean {
  let at = 0;
  let place = 0;
  let star = -1;
  let resume = 0;
  while (at < text.length) {
    if (place < pattern.length && (pattern[place] === "?" || (pattern[place] === text[at] && pattern[place] !== "*"))) {
      at++;
      place++;
    } else if (pattern[place] === "*") {
      star = place++;
      resume = at;
    } else if (star >= 0) {
      place = star + 1;
      at = ++resume;
    } else return false;
  }
  while (pattern[place] === "*") place++;
  return place === pattern.length;
}

/** Of a stored node; empty where it has not described itself yet. */
export function traitsOf(node: skep.objects.Node.$Properties): NodeTraits {
  return {
    id: node.id ?? "",
    hostname: node.description?.hostname ?? "",
    addr: node.status?.addr ?? "",
    role: node.role === skep.objects.NodeRole.MANAGER ? "manager" : "worker",
    os: node.description?.platform?.os ?? "",
    architecture: node.description?.platform?.architecture ?? "",
    labels: new Map(Object.entries(node.spec?.labels ?? {})),
    engineLabels: new Map(Object.entries(node.description?.engine?.labels ?? {})),
  };
}

/** KEY=VALUE of the node's label that the constraint asks for; undefined: it asks for something else. */
export function requiredLabel({ text }: Pick<Constraint, "text">): string | undefined {
  const [, key, value] = /^\s*node\.labels\.([\w.-]+)\s*==\s*([\w.-]+)\s*$/.exec(text) ?? [];
  return key === undefined ? undefined : `${key}=${value}`;
}
