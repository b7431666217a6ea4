/** Judges answers by the Engine API's own description: the schema of each route and status, and no member beyond it. */
import { readFileSync } from "node:fs";
import { Ajv2019, type ValidateFunction } from "ajv/dist/2019.js";
import { parse } from "yaml";

type Schema = Record<string, unknown>;

interface Document {
  readonly definitions: Record<string, Schema>;
  readonly responses?: Record<string, Schema>;
  readonly paths: Record<string, Record<string, { readonly responses: Record<string, { readonly schema?: Schema }> }>>;
}

export class OpenApi {
  readonly #document: Document;
  readonly #ajv = new Ajv2019({ strict: false, validateFormats: false, allErrors: true });
  readonly #compiled = new Map<string, ValidateFunction>();
  readonly #paths: readonly (readonly [RegExp, string])[];

  constructor(file: string) {
    this.#document = parse(readFileSync(file, "utf8")) as Document;
    // The most specific first: a path without parameters before one with.
    this.#paths = Object.keys(this.#document.paths)
      .toSorted((a, b) => a.split("{").length - b.split("{").length)
      .map((path) => [new RegExp(`^${path.replaceAll(/\{[^}]+\}/g, "[^/]+")}$`), path]);
  }

  /** @returns what is wrong with the answer; nothing if it fits, or if the description says nothing about it */
  judge(method: string, path: string, status: number, body: unknown): readonly string[] {
    const template = this.#paths.find(([pattern]) => pattern.test(path))?.[1];
    const schema =
      template === undefined
        ? undefined
        : this.#document.paths[template]?.[method.toLowerCase()]?.responses[String(status)]?.schema;
    if (template === undefined || schema === undefined) return [];
    const key = `${method} ${template} ${status}`;
    let validate = this.#compiled.get(key);
    if (validate === undefined) {
      validate = this.#ajv.compile(this.#convert(schema, true, []));
      this.#compiled.set(key, validate);
    }
    if (validate(body)) return [];
    return (validate.errors ?? []).map(
      ({ instancePath, message, params }) => `${instancePath} ${message ?? ""} ${JSON.stringify(params)}`,
    );
  }

  /**
   * Swagger 2 to JSON schema. Empty lists and maps may be null: real servers answer so (README.md beside the data).
   * @param closed  members that are not described are wrong; not inside `allOf`, whose parts describe one object together
   */
  #convert(schema: Schema, closed: boolean, within: readonly string[]): Schema {
    if (typeof schema["$ref"] === "string") {
      const name = schema["$ref"].slice("#/definitions/".length);
      if (within.filter((outer) => outer === name).length > 2) return {};
      return this.#convert(this.#document.definitions[name] ?? {}, closed, [...within, name]);
    }
    const converted: Schema = {};
    for (const [key, value] of Object.entries(schema)) {
      if (["example", "description", "title", "default", "readOnly", "format", "x-nullable"].includes(key)) continue;
      if (key === "properties") {
        converted[key] = Object.fromEntries(
          Object.entries(value as Record<string, Schema>).map(([name, part]) => [
            name,
            this.#convert(part, true, within),
          ]),
        );
      } else if (key === "items" || (key === "additionalProperties" && typeof value === "object")) {
        converted[key] = this.#convert(value as Schema, true, within);
      } else if (key === "allOf") {
        converted[key] = (value as Schema[]).map((part) => this.#convert(part, false, within));
      } else converted[key] = value;
    }
    const { type } = schema;
    const described = schema["properties"] !== undefined || schema["allOf"] !== undefined;
    if (closed && described && schema["additionalProperties"] === undefined) converted["unevaluatedProperties"] = false;
    // A word that this description has not heard of is judged by our own tests.
    if (schema["enum"] !== undefined) delete converted["enum"];
    if (type === "array" || type === "object") converted["type"] = [type, "null"];
    else if (schema["x-nullable"] === true && typeof type === "string") converted["type"] = [type, "null"];
    return converted;
  }
}
